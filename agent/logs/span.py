"""Choose the lines of a log that lie between two times, and the last of them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Span:
    """Times in UTC, both inclusive; None is no bound."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self.since is not None or self.until is not None

    def has(self, at: datetime) -> bool:
        """Whether a time lies within."""
        return (self.since is None or at >= self.since) and (self.until is None or at <= self.until)


class Chooser:
    """Says line by line whether it lies within; `stamped` is whether any said its time."""

    def __init__(self, span: Span, time_of: Callable[[bytes], datetime | None]) -> None:
        self._span = span
        self._time_of = time_of
        self._within = not span.bounded
        self.stamped = False

    def fits(self, line: bytes) -> bool:
        """Whether the line lies within; one without a time goes where the one before went."""
        at = self._time_of(line) if self._span.bounded else None
        if at is not None:
            self.stamped = True
            self._within = self._span.has(at)
        return self._within

    def chosen(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that lie within."""
        return filter(self.fits, lines)


def last(lines: Iterable[bytes], count: int, *, most_bytes: int) -> tuple[list[bytes], bool]:
    """The last lines, at most `count` and `most_bytes`; whether bytes were what cut them.

    >>> last([b"a", b"bb", b"cc"], 2, most_bytes=3)
    ([b'cc'], True)
    """
    kept: deque[bytes] = deque()
    size, cut = 0, False
    for line in lines:
        kept.append(line)
        size += len(line)
        while kept and (len(kept) > count or size > most_bytes):
            cut = cut or len(kept) <= count
            size -= len(kept.popleft())
    return list(kept), cut
