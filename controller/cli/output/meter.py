"""How far a long command has come: share, rate and time left, on a terminal alone.

    with meter("check", total_bytes) as told:
        told(done_bytes, "web-01")

What is told goes to standard error, on one line that is gone at the end. Where standard
error is no terminal nothing is said: who wants a record has the result.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from controller.cli.output.emit import printable, render_bytes

BAR = 12
LABEL = 18
_FAR_DAYS = 1000
_SETTLED_S = 2.0
"""Before that the rate is anybody's guess, and so is the time left."""


class Told(Protocol):
    """Takes what is done by now, and a word that says with what."""

    def __call__(self, done: float, word: str = "", /, *, total: float = 0) -> None:
        """See the module; `total` where it becomes known, or changes."""


def render_left(seconds: float) -> str:
    """How long it still takes, for people.

    >>> render_left(75), render_left(7300), render_left(3)
    ('1 min 15 s left', '2 h 1 min left', '3 s left')
    """
    days, rest = divmod(max(0, round(seconds)), 86_400)
    hours, minutes, left = rest // 3600, rest // 60 % 60, rest % 60
    if days:
        return f"{days} d {hours} h left" if days < _FAR_DAYS else "long"
    if hours:
        return f"{hours} h {minutes} min left"
    return f"{minutes} min {left} s left" if minutes else f"{left} s left"


def render_done(done: float, total: float, elapsed_s: float, unit: str) -> str:
    """Share, amount, rate and time left in a few words.

    >>> render_done(512, 1024, 4, "")
    '50 %  512  128/s  4 s left'
    >>> render_done(1 << 20, 0, 2, "bytes")
    '1.0 MiB  512.0 KiB/s'
    """
    amount = render_bytes if unit == "bytes" else _count
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    words = []
    if total > 0:
        words.append(f"{min(100, 100 * done / total):.0f} %")
    words.append(amount(done))
    if elapsed_s >= _SETTLED_S and rate > 0:
        words.append(f"{amount(rate)}/s")
        if total > done:
            words.append(render_left((total - done) / rate))
    return "  ".join(words)


@contextmanager
def meter(
    label: str,
    total: float = 0,
    *,
    unit: str = "bytes",
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Told]:
    """Show how far something is; call what is given with what is done and a word or none.

    `total` 0 means that nobody knows. `unit` is "bytes", or empty for a count.
    """
    if not sys.stderr.isatty():
        yield _silent
        return
    began = clock()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(BAR),
        _Words(unit),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        line = progress.add_task(label[:LABEL], total=total or None, seconds=0.0)

        def told(done: float, word: str = "", /, *, total: float = 0) -> None:
            said = f"{label} {printable(word)}" if word else label
            if total:
                progress.update(line, total=total)
            progress.update(line, completed=done, description=said[:LABEL], seconds=clock() - began)

        yield told


class _Words(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """See `render_done`."""
        seconds = float(task.fields.get("seconds", 0.0))
        return Text(render_done(task.completed, task.total or 0, seconds, self._unit))


def _silent(_done: float, _word: str = "", /, *, total: float = 0) -> None:
    pass


def _count(amount: float) -> str:
    return f"{amount:,.0f}"
