from __future__ import annotations

import os
import pty
import sys
from contextlib import closing, suppress

import pytest

from controller.cli.output.printed import LINE_BYTES, Printer
from protocol.v1.link_pb2 import OutputStream, TaskOutput

OUT, ERR = OutputStream.OUTPUT_STREAM_STDOUT, OutputStream.OUTPUT_STREAM_STDERR
HOSTILE = b"\x1b]0;title\x07\xff\r\n\x00"


def show(names: dict[str, str], *pieces: tuple[str, OutputStream.ValueType, bytes]) -> None:
    with closing(Printer(names)) as printer:
        for task, stream, data in pieces:
            printer.print(TaskOutput(task_id=task, stream=stream, data=data))


def test_bytes_of_one_machine_pass_unchanged(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show({"t": "web"}, ("t", OUT, HOSTILE), ("t", ERR, b"no\xfe"), ("t", OUT, b"\xe2\x82"))
    assert capfdbinary.readouterr() == (HOSTILE + b"\xe2\x82", b"no\xfe")


def test_lines_of_several_machines_stay_whole_and_have_a_name(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    show(
        {"a": "web", "b": "db"},
        ("a", OUT, b"one\ntw"),
        ("b", OUT, b"x\xff\x1b\r\n"),
        ("a", OUT, b"o\nend"),
        ("a", ERR, b"no\n"),
    )
    assert capfdbinary.readouterr() == (
        b"web: one\ndb: x\xff\x1b\r\nweb: two\nweb: end\n",
        b"web: no\n",
    )


def on_a_terminal(
    patch: pytest.MonkeyPatch,
    names: dict[str, str],
    *pieces: tuple[str, OutputStream.ValueType, bytes],
) -> bytes:
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w", encoding="utf-8") as stdout, patch.context() as patched:
            patched.setattr(sys, "stdout", stdout)
            show(names, *pieces)
        # What was written comes in as many reads as it likes; then the terminal is gone.
        said = b""
        with suppress(OSError):
            while piece := os.read(ours, 4096):
                said += piece
        return said
    finally:
        os.close(ours)


@pytest.mark.parametrize("names", [{"t": "web"}, {"t": "web", "u": "db"}])
def test_nothing_steers_a_terminal(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    euro = "€".encode()
    said = on_a_terminal(
        monkeypatch, names, ("t", OUT, HOSTILE), ("t", OUT, euro[:1]), ("t", OUT, euro[1:])
    )
    assert b"\x1b" not in said
    assert b"\x07" not in said
    assert b"\\x1b]0;title\\x07\\xff" in said
    assert euro in said


def test_no_machine_speaks_for_another_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"t": "web", "u": "db"}
    said = on_a_terminal(monkeypatch, names, ("t", OUT, b"a\rdb: all is well\r\nb\n"))
    # A terminal puts a return before each new line itself.
    assert said == b"web: a\\rdb: all is well\r\nweb: b\r\n"


def test_a_line_without_end_is_not_kept(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    names = {"t": "web", "u": "db"}
    with closing(Printer(names)) as printer:
        for _ in range(5):
            printer.print(TaskOutput(task_id="t", stream=OUT, data=b"x" * LINE_BYTES))
        assert len(capfdbinary.readouterr().out) == 4 * (LINE_BYTES + len(b"web: \n"))
    assert capfdbinary.readouterr().out == b"web: " + b"x" * LINE_BYTES + b"\n"


def test_half_a_character_at_the_end_is_not_lost_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = on_a_terminal(monkeypatch, {"t": "web"}, ("t", OUT, b"a\xe2\x82"))
    assert said == b"a\\xe2\\x82"
