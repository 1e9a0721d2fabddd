"""A machine's restore points as a picture: how large they were, and what each one added. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from controller.cli.output.bars import render_bar, render_sparks
from controller.cli.output.emit import render_bytes

WIDEST = 120
_TIME = 16
_FIGURES = 11
_LEAST_BAR = 8


@dataclass(frozen=True, slots=True)
class Mark:
    """A restore point in the picture, or several that share a line."""

    at: datetime
    size: int
    added: int
    count: int = 1
    is_partial: bool = False


def render_history(marks: Sequence[Mark], *, lines: int, width: int) -> list[Text]:
    """A line for each restore point, oldest first, none longer than `width`.

    Where there are more than `lines`, neighbours in time share one: what they added is
    summed up and the size is that of the last.
    """
    shown = list(_folded(marks, lines))
    if not shown:
        return []
    width = min(width, WIDEST)
    room = max(_LEAST_BAR * 2, width - _TIME - 2 * _FIGURES - 5)
    wide, narrow = room - room // 3, room // 3
    biggest = max(mark.size for mark in shown)
    most = max(mark.added for mark in shown)
    found = [
        Text(
            f"{'':<{_TIME}} {'size':>{_FIGURES}} {'':<{wide}} {'added':>{_FIGURES}}",
            style="bold",
        )
    ]
    found += [_line(mark, biggest, most, wide, narrow) for mark in shown]
    if len(shown) > 1:
        sparks = render_sparks([mark.added for mark in shown])
        found.append(Text(f"{'added':<{_TIME}} {sparks}", style="dim"))
    for line in found:
        line.truncate(width, overflow="ellipsis")
        line.rstrip()
    return found


def _line(mark: Mark, biggest: int, most: int, wide: int, narrow: int) -> Text:
    local = mark.at.astimezone()
    size = f"{render_bytes(mark.size):>{_FIGURES}} "
    added = f" {render_bytes(mark.added):>{_FIGURES}} "
    bar = f"{render_bar(mark.size, biggest, wide):<{wide}}"
    return Text.assemble(
        (f"{local:%Y-%m-%d %H:%M} ", "yellow" if mark.is_partial else ""),
        size,
        (bar, "yellow" if mark.is_partial else "green"),
        added,
        (render_bar(mark.added, most, narrow), "cyan"),
    )


def _folded(marks: Sequence[Mark], lines: int) -> Iterator[Mark]:
    """At most `lines` marks, neighbours taken together.

    >>> marks = [Mark(datetime(2026, 5, day), 10 * day, 1) for day in range(1, 7)]
    >>> [(mark.size, mark.added, mark.count) for mark in _folded(marks, 3)]
    [(20, 2, 2), (40, 2, 2), (60, 2, 2)]
    """
    ordered = sorted(marks, key=lambda mark: mark.at)
    each = max(1, -(-len(ordered) // max(1, lines)))
    # The newest line is as full as the others: the oldest may stand alone.
    first = len(ordered) % each or each
    start = 0
    end = first
    while start < len(ordered):
        group = ordered[start:end]
        last = group[-1]
        yield Mark(
            last.at,
            last.size,
            sum(mark.added for mark in group),
            len(group),
            any(mark.is_partial for mark in group),
        )
        start, end = end, end + each
