"""How results reach whoever typed the command: the one way out.

Data goes to standard output and nothing else does: tables for people, JSON for
scripts. What is said about the work, progress and notes, goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from controller.cli.output.columns import BETWEEN, joined, widths_of
from protocol.moment import from_ms
from protocol.shown import encode_json

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]
NO_CELLS: Mapping[str, Callable[[Row], str]] = {}

FORMATS = ("table", "json", "jsonl")
UNBROKEN = frozenset({"id", "job", "point", "task", "state", "drill"})
"""Columns that are copied from, so that no line break may fall into them."""

UNBOUNDED = 1_000_000_000
"""Columns of what is no terminal: programs that read lines want a row on each."""

FOLDED = 12
"""A column may be folded to so many characters before records go below each other instead."""

GOOD = frozenset({"succeeded", "active", "ok", "linked", "running", "good", "up"})
WARN = frozenset(
    {
        "partial",
        "awaiting",
        "waiting",
        "queued",
        "offered",
        "expired",
        "cancelled",
        "stale",
        "unlinked",
        "unreadable",
    }
)
BAD = frozenset(
    {
        "failed",
        "timed_out",
        "rejected",
        "indeterminate",
        "revoked",
        "unavailable",
        "damaged",
        "wrong",
        "late",
        "untried",
    }
)


def output_option(command: F) -> F:
    """Add `--output table|json|jsonl` to a command."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Table for people, JSON for scripts.",
    )(command)


def emit(
    rows: Sequence[Row],
    output: str,
    *,
    columns: Sequence[str],
    empty: str = "",
    cells: Mapping[str, Callable[[Row], str]] = NO_CELLS,
    title: str = "",
) -> None:
    """Print records. `columns` are those of the table; JSON has every field.

    `cells` say a column of the table in words of their own.
    """
    if output == "json":
        _write(msgspec.json.format(encode_json([plain_row(row) for row in rows]), indent=2))
        return
    if output == "jsonl":
        for row in rows:
            _write(encode_json(plain_row(row)))
        return
    if not rows:
        note(empty or "nothing to show")
        return
    if title:
        _print(Text(printable(title), style="bold"))
    shown = [
        {
            column: _one_line(
                cell_of(column, cells[column](row) if column in cells else row.get(column))
            )
            for column in columns
        }
        for row in rows
    ]
    whole = {
        column
        for column in columns
        if column in UNBROKEN or any(isinstance(row.get(column), datetime) for row in rows)
    }
    if _least_width(shown, columns, whole) > console().width:
        _print_blocks(shown)
        return
    right = [
        column not in cells and any(_counts(row.get(column)) for row in rows) for column in columns
    ]
    style = "bold" if not title else "dim"
    lines = [list(row.values()) for row in shown]
    header = [Text(_label(column).plain, style=style) for column in columns]
    widths = widths_of([header, *lines])
    fits = sum(widths) + BETWEEN * (len(widths) - 1) <= console().width
    if fits and not any("\n" in cell.plain for line in lines for cell in line):
        _print_lines([joined(line, widths, right) for line in (header, *lines)])
        return
    table = Table(box=None, pad_edge=False, header_style=style)
    for column, is_right in zip(columns, right, strict=True):
        table.add_column(
            _label(column),
            justify="right" if is_right else "left",
            overflow="fold",
            no_wrap=column in whole,
        )
    for line in lines:
        table.add_row(*line)
    _print(table)


def _counts(value: Any) -> bool:
    """Whether a value is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _print_lines(lines: Sequence[Text]) -> None:
    """Print lines of which each fits into the window."""
    target = console()
    if sys.stdout.isatty():
        for line in lines:
            target.print(line, no_wrap=True)
        return
    sys.stdout.write("".join(f"{line.plain.rstrip()}\n" for line in lines))


def _least_width(
    shown: Sequence[Mapping[str, Text]], columns: Sequence[str], whole: Collection[str]
) -> int:
    """The columns of a terminal below which a table of these cells is hard to read."""
    total = 2 * (len(columns) - 1)
    for column in columns:
        widest = max(cell.cell_len for cell in (_label(column), *(row[column] for row in shown)))
        total += widest if column in whole else min(widest, FOLDED)
    return total


def _print_blocks(shown: Sequence[Mapping[str, Text]]) -> None:
    """Records below each other, a line for each value, with a blank line between them."""
    for place, row in enumerate(shown):
        if place:
            console().print()
        _print(_block(row))


def _block(row: Mapping[str, Text]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, cell in row.items():
        table.add_row(_label(name), cell)
    return table


def emit_one(record: Row, output: str, *, title: str = "") -> None:
    """Print one record: a list of its fields, or a JSON object."""
    if output != "table":
        body = encode_json(plain_row(record))
        _write(msgspec.json.format(body, indent=2) if output == "json" else body)
        return
    if title:
        _print(Text(printable(title), style="bold"))
    _print(_block({name: _one_line(cell_of(name, value)) for name, value in record.items()}))


def note(message: str) -> None:
    """Say something to the person, beside the data."""
    Console(stderr=True, soft_wrap=True).print(Text(printable(message)))


def console() -> Console:
    """Standard output for people; as wide as it takes when it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else UNBOUNDED, highlight=False)


def printable(text: str) -> str:
    """Text from afar made harmless: no control characters reach the terminal.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """One that would do something, or a byte of a name that is no UTF-8."""
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else repr(character)[1:-1]


def render_bytes(count: float) -> str:
    """A size for people.

    >>> render_bytes(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def render_names(names: Sequence[str], most: int = 5) -> str:
    """Names for people; of many the first.

    >>> render_names(["a", "b", "c"], 2), render_names(["a", "b"])
    ('a, b and 1 more', 'a, b')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def render_age(at: datetime | None, now: datetime) -> str:
    """How long ago, for people.

    >>> from datetime import UTC
    >>> render_age(None, datetime.now(UTC))
    'never'
    """
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    if seconds < 0:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def local_time(at: datetime) -> datetime:
    """A time in the zone of whoever reads it; in UTC where there is none in that zone.

    A machine says when it began, and may say the last second of all calendars.
    """
    try:
        return at.astimezone()
    except OverflowError:
        return at


def from_wire_ms(ms: int) -> datetime | None:
    """A time from a message; 0 is none. INVALID for one that the controller made up."""
    return from_ms(ms) if ms else None


def _print(shown: Table | Text) -> None:
    target = console()
    if sys.stdout.isatty():
        target.print(shown)
        return
    with target.capture() as captured:
        target.print(shown)
    # The blanks that fill up a last column are nobody's.
    lines = captured.get().rstrip("\n").split("\n")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))


def _one_line(cell: Text) -> Text:
    """A line break inside a cell would make two rows of one for whoever reads lines."""
    if sys.stdout.isatty() or "\n" not in cell.plain:
        return cell
    return Text(cell.plain.replace("\n", "\\n"), style=cell.style)


def plain_row(row: Row) -> dict[str, Any]:
    """A record as JSON knows values."""
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        # A name that was typed may be no UTF-8; everywhere else it shows as \\xff.
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {_value(name): _value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(inner) for inner in value]
    return value


def _label(name: str) -> Text:
    return Text(printable(name.removesuffix("_at").replace("_", " ")))


def cell_of(column: str, value: Any) -> Text:
    """A value as a table shows it; the column's name says what kind of value it is."""
    if value is None or value in ("", [], ()):
        return Text("–", style="dim")
    if isinstance(value, datetime):
        local = local_time(value)
        return Text(f"{local:%Y-%m-%d %H:%M:%S}" if column == "at" else f"{local:%Y-%m-%d %H:%M}")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, bytes):
        return Text(value.hex()[:16])
    if isinstance(value, (list, tuple, set, frozenset)):
        return Text(printable(", ".join(map(str, value))))
    if isinstance(value, int) and column.endswith("_bytes"):
        return Text(render_bytes(value))
    text = printable(str(value))
    style = "green" if text in GOOD else "yellow" if text in WARN else "red" if text in BAD else ""
    return Text(text, style=style)


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
