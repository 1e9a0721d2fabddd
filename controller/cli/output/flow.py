"""Print records as they come, so that a million of them need no more memory than a page.

The widths of a table's columns are those of its first page; what is wider later pushes
the rest of its line to the right.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from rich.text import Text

from controller.cli.output.columns import joined, widths_of
from controller.cli.output.emit import NO_CELLS, Row, cell_of, console, note, plain_row
from protocol.shown import encode_json

PAGE = 200


def emit_flow(
    rows: Iterable[Row],
    output: str,
    *,
    columns: Sequence[str],
    empty: str = "",
    cells: Mapping[str, Callable[[Row], str]] = NO_CELLS,
) -> int:
    """Print records; how many there were. The arguments are those of `emit`."""
    flow = iter(rows)
    if output == "table":
        return _table(flow, columns, cells, empty)
    write = sys.stdout.buffer.write
    count = 0
    for count, row in enumerate(flow, 1):
        encoded = encode_json(plain_row(row))
        if output == "json":
            body = msgspec.json.format(encoded, indent=2).replace(b"\n", b"\n  ")
            write((b",\n  " if count > 1 else b"[\n  ") + body)
        else:
            write(encoded + b"\n")
    if output == "json":
        write(b"\n]\n" if count else b"[]\n")
    sys.stdout.buffer.flush()
    return count


def _table(
    flow: Iterator[Row],
    columns: Sequence[str],
    cells: Mapping[str, Callable[[Row], str]],
    empty: str,
) -> int:
    first = list(itertools.islice(flow, PAGE))
    if not first:
        note(empty or "nothing to show")
        return 0
    lines = [_line(row, columns, cells) for row in first]
    header = [
        Text(name.removesuffix("_at").removesuffix("_bytes").replace("_", " "), style="bold")
        for name in columns
    ]
    widths = widths_of([header, *lines])
    right = [
        name not in cells
        and any(isinstance(row.get(name), int) and not isinstance(row[name], bool) for row in first)
        for name in columns
    ]
    target = console()
    count = 0
    for line in itertools.chain([header], lines, (_line(row, columns, cells) for row in flow)):
        target.print(joined(line, widths, right), soft_wrap=True)
        count += 1
    sys.stdout.flush()
    return count - 1


def _line(
    row: Row, columns: Sequence[str], cells: Mapping[str, Callable[[Row], str]]
) -> list[Text]:
    made = []
    for name in columns:
        cell = cell_of(name, cells[name](row) if name in cells else row.get(name))
        if "\n" in cell.plain:
            cell = Text(cell.plain.replace("\n", "\\n"), style=cell.style)
        made.append(cell)
    return made
