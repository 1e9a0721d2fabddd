"""Streams: the output of programs as files of a restore point, whole or not at all."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import pytest

from agent.backup.select.commands import check_commands
from protocol.errors import InvalidError
from protocol.selection import Commands, CommandStream
from protocol.vault.node import Root
from tests.unit.backup.machine import Machine

PYTHON = sys.executable


def _stream(path: bytes, code: str) -> CommandStream:
    return CommandStream(path, (PYTHON, "-c", code))


def _content(machine: Machine, root: Root, path: bytes) -> bytes:
    restored, _ = machine.restore(root, path)
    return restored.read_bytes()


def test_what_a_program_prints_is_a_file_of_the_point(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.files / "a").write_bytes(b"a file")
    small = _stream(b"/streams/small", "print('one line')")
    none = _stream(b"/streams/deep/none", "")
    report = machine.back_up(commands=Commands((small, none)))
    assert report.is_complete, report.skipped.as_json()
    restored, _ = machine.restore(report.root, b"streams/small")
    assert restored.read_bytes() == b"one line\n"
    assert restored.stat().st_mode & 0o7777 == 0o600
    assert _content(machine, report.root, b"streams/deep/none") == b""
    again = machine.back_up(commands=Commands((_stream(b"/streams/small", "print('two')"), none)))
    assert _content(machine, again.root, b"streams/small") == b"two\n"
    assert again.counts.reused_files == 1


def test_a_stream_may_lie_beside_a_named_path(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.files / "a").write_bytes(b"a file")
    (machine.files / "z").mkdir()
    path = bytes(machine.files)[1:] + b".dump"
    report = machine.back_up(commands=Commands((_stream(b"/" + path, "print('beside')"),)))
    assert report.is_complete, report.skipped.as_json()
    assert _content(machine, report.root, path) == b"beside\n"
    assert _content(machine, report.root, bytes(machine.files)[1:] + b"/a") == b"a file"


@pytest.mark.parametrize(
    ("code", "timeout_s", "reason"),
    [
        ("import sys; print('half'); sys.exit('the table is locked')", 60, "the table is locked"),
        ("import os; print('half', flush=True); os.kill(os.getpid(), 9)", 60, "signal 9"),
        ("print('half', flush=True); import time; time.sleep(60)", 1, "within 1 s"),
    ],
)
def test_a_program_that_fails_leaves_no_file(
    tmp_path: Path, code: str, timeout_s: int, reason: str
) -> None:
    machine = Machine(tmp_path)
    (machine.files / "a").write_bytes(b"a file")
    report = machine.back_up(
        commands=Commands((_stream(b"/streams/x", code),), timeout_s=timeout_s)
    )
    assert not report.is_complete
    (skipped,) = report.skipped.as_json()
    assert skipped["path"] == "/streams/x"
    assert reason in skipped["reason"]
    assert report.root.files == 1


def test_a_missing_program_leaves_no_file(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.files / "a").write_bytes(b"a file")
    stream = CommandStream(b"/streams/x", ("/nonexistent/program",))
    report = machine.back_up(commands=Commands((stream,)))
    assert "cannot start" in report.skipped.as_json()[0]["reason"]
    assert report.root.files == 1


def test_a_large_stream_is_never_held_whole(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    # 50 MB that compress well, since this vault is in memory too.
    code = "for n in range(800): print(f'{n:08}' * 8192)"
    (machine.files / "a").write_bytes(b"a file")
    machine.back_up()
    tracemalloc.start()
    try:
        report = machine.back_up(commands=Commands((_stream(b"/streams/big", code),)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.is_complete, report.skipped.as_json()
    assert report.root.bytes == 800 * (8 * 8192 + 1) + 6
    assert peak < 30_000_000
    printed = "".join(f"{f'{n:08}' * 8192}\n" for n in range(800))
    assert _content(machine, report.root, b"streams/big") == printed.encode()


@pytest.mark.parametrize(
    "path", [b"streams/x", b"/", b"/data", b"/data/x", b"/srv", b"/a\0b", b"/streams/"]
)
def test_a_stream_has_a_path_of_its_own(path: bytes) -> None:
    with pytest.raises(InvalidError):
        check_commands(Commands((CommandStream(path, ("true",)),)), [b"/data", b"/srv/www"])


def test_streams_do_not_lie_below_each_other() -> None:
    streams = (CommandStream(b"/s", ("true",)), CommandStream(b"/s/x", ("true",)))
    with pytest.raises(InvalidError, match="each other"):
        check_commands(Commands(streams), [b"/data"])
