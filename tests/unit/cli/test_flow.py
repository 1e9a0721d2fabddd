from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from controller.cli.output.flow import PAGE, emit_flow
from protocol.errors import SteadError

ROWS: list[dict[str, Any]] = [
    {"size_bytes": 2048, "name": "a\x1b[31m", "path": "/a"},
    {"size_bytes": None, "name": "b\nc", "path": "/b"},
]


def test_a_table_keeps_columns_and_lets_no_escape_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert emit_flow(ROWS, "table", columns=("size_bytes", "name")) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["   size  name", "2.0 KiB  a\\x1b[31m", "      –  b\\nc"]


def test_nothing_is_said_beside_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert emit_flow([], "table", columns=("name",), empty="no such thing") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no such thing\n")


@pytest.mark.parametrize("count", [0, 1, 2, PAGE + 7])
def test_json_is_one_list_and_jsonl_a_line_each(
    count: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    rows = [{"name": str(number)} for number in range(count)]
    assert emit_flow(iter(rows), "json", columns=("name",)) == count
    assert json.loads(capsysbinary.readouterr().out) == rows
    assert emit_flow(iter(rows), "jsonl", columns=("name",)) == count
    assert [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()] == rows
    emit_flow(iter(rows), "table", columns=("name",))
    out = capsysbinary.readouterr().out.decode().splitlines()
    assert out == (["name", *(str(number) for number in range(count))] if count else [])


def test_what_fails_before_its_first_row_says_nothing_that_looks_like_an_answer(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from looked_up("no-such-point")

    def looked_up(point: str) -> list[dict[str, Any]]:
        raise SteadError(f"there is no {point}")

    for output in ("json", "jsonl", "table"):
        with pytest.raises(SteadError):
            emit_flow(rows(), output, columns=("name",))
    assert capsysbinary.readouterr().out == b""


def test_many_rows_take_the_memory_of_a_page(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    def rows(count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield {"name": f"{number:0500}"}

    # What the capture itself keeps is not in Python's memory but in a file.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("controller.cli.output.flow.sys.stdout", Sink())
        tracemalloc.start()
        emit_flow(rows(20_000), "jsonl", columns=("name",))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000


class Sink:
    """Standard output that forgets."""

    @property
    def buffer(self) -> Sink:
        return self

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass
