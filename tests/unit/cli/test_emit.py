from __future__ import annotations

import io
import json
import os
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from controller.cli.output.emit import emit, emit_one, printable

ROWS: list[dict[str, Any]] = [
    {"name": "web-01", "at": datetime(2026, 5, 1, tzinfo=UTC), "root": b"\x01\x02", "tags": ["a"]},
    {"name": "\x1b[31mred", "at": None, "root": b"", "tags": []},
]


def test_json_has_every_field_and_nothing_but_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, "json", columns=("name",))
    out, err = capsys.readouterr()
    assert json.loads(out)[0] == {
        "name": "web-01",
        "at": "2026-05-01T00:00:00.000Z",
        "root": "0102",
        "tags": ["a"],
    }
    assert err == ""


def test_jsonl_has_one_record_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, "jsonl", columns=())
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == [
        "web-01",
        "\x1b[31mred",
    ]


def test_an_empty_listing_is_an_empty_list_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    emit([], "json", columns=(), empty="nothing here")
    assert json.loads(capsys.readouterr().out) == []
    emit([], "table", columns=(), empty="nothing here")
    assert capsys.readouterr() == ("", "nothing here\n")


def test_nothing_from_afar_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, "table", columns=("name", "tags"))
    emit_one(ROWS[1], "table", title="\x1b]0;title\x07")
    assert "\x1b" not in capsys.readouterr().out
    assert "\x07" not in printable("\x07")


@pytest.mark.parametrize("output", ["json", "jsonl", "table"])
def test_a_name_that_is_no_utf8_shows_as_its_bytes(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"caf\xe9")
    emit([{"file": name, "more": {name: [name]}}], output, columns=("file",))
    out = capsys.readouterr().out
    assert "caf\\xe9" in out.replace("\\\\", "\\")
    if output != "table":
        (row,) = json.loads(out if output == "json" else f"[{out}]")
        assert row == {"file": "caf\\xe9", "more": {"caf\\xe9": ["caf\\xe9"]}}


def test_nested_records_keep_their_shape(capsys: pytest.CaptureFixture[str]) -> None:
    emit_one({"machine": {"seen": ROWS[0]["at"], "key": b"\xff"}}, "jsonl")
    assert json.loads(capsys.readouterr().out) == {
        "machine": {"seen": "2026-05-01T00:00:00.000Z", "key": "ff"}
    }


def test_a_row_is_one_line_of_its_own_where_no_terminal_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "x" * 5_000 + " y" * 500
    emit(
        [{"name": "a", "what": long, "id": "1"}, {"name": "two\nlines", "what": "", "id": None}],
        "table",
        columns=("name", "what", "id"),
        title="t " * 200,
    )
    emit_one({"long": long, "short": "s"}, "table", title="one")
    title, _, first, second, one, wide, short = capsys.readouterr().out.splitlines()
    assert title == ("t " * 200).rstrip()
    assert first.split() == ["a", "x" * 5_000, *["y"] * 500, "1"]
    assert second.startswith("two\\nlines")
    assert one == "one"
    assert wide == f"long   {long}"
    assert short == "short  s"


@pytest.mark.parametrize("width", [40, 60, 79, 100])
def test_a_name_to_be_copied_is_whole_in_a_narrow_window(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.StringIO()
    monkeypatch.setattr(
        "controller.cli.output.emit.console", lambda: Console(width=width, file=printed)
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    job = "or_" + "0123456789" * 2 + "012345"
    row = {"submitted": "3 min ago", "summary": "restart everything " * 3, "operator": "ann"}
    emit([{**row, "job": job}] * 2, "table", columns=(*row, "job"))
    lines = printed.getvalue().splitlines()
    assert sum(job in line for line in lines) == 2
    assert all(len(line) <= width for line in lines)
    words = printed.getvalue().split()
    assert words.count("restart") == 6, "no word is folded to a column of a few letters"
    assert ("operator" in lines[0]) == (width >= 79)


def test_json_steers_no_terminal_and_reads_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    said = "\x1b[2J \x7f \x9b2J \u202egnp.exe \u2066 é 日本 e\u0301"
    for output in ("json", "jsonl"):
        emit([{"name": said}], output, columns=("name",))
        printed = capsys.readouterr().out
        assert printed.replace("\n", "").replace("\u0301", "").isprintable()
        assert "é 日本" in printed
        assert json.loads(printed) in ([{"name": said}], {"name": said})


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "UTC"])
def test_a_time_that_a_machine_made_up_is_shown_in_whichever_zone(
    zone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One machine must not keep the listing of all others from somebody in Berlin."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        for at in (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)):
            emit([{"machine": "web-01", "next_run_at": at}], "table", columns=("next_run_at",))
    time.tzset()
    assert len(capsys.readouterr().out.splitlines()) == 4
