"""Draw a machine's restore points on the terminal; see `controller.cli.points.history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controller.cli.output.emit import console
from controller.cli.points.history import WIDEST, Mark, render_history

LINES = 40
PLAIN_WIDTH = 80


def draw(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw records of restore points; those that are not to be believed are left out."""
    marks = [
        Mark(row["received_at"], row["bytes"], row["new_bytes"], is_partial=bool(row["skipped"]))
        for row in rows
        if row["bytes"] is not None and row["received_at"] is not None
    ]
    target = console()
    width = target.width if target.is_terminal else PLAIN_WIDTH
    for line in render_history(marks, lines=LINES, width=min(width, WIDEST)):
        target.print(line, no_wrap=True)
