"""systemd's journal, by `journalctl`: how it is called, and what it prints newest first. Pure.

Before release 254 `--lines` counts from the beginning of a span, and of one with an end it finds
nothing. Backwards it has always meant the last ones.
"""

from __future__ import annotations

import math
import re
from collections import deque

from agent.logs.span import Span
from protocol.errors import InvalidError

_UNIT = re.compile(r"[A-Za-z0-9_.:\\][A-Za-z0-9_.:\\@+-]{0,254}")


def journalctl(
    unit: str, span: Span, count: int, *, follow: bool = False, backwards: bool = False
) -> tuple[str, ...]:
    """How `journalctl` is called. `unit` may be empty; `InvalidError` when it can be no unit.

    A `count` of a span with bounds is right `backwards` alone. Every value stands behind an
    equals sign, so that none becomes an option.
    """
    if unit and not _UNIT.fullmatch(unit):
        raise InvalidError(f"{unit[:80]!r} cannot be the name of a unit")
    argv = ["journalctl", "--no-pager", "--quiet", "--utc", "--output=short-iso"]
    if unit:
        argv.append(f"--unit={unit}")
    if span.since is not None:
        argv.append(f"--since=@{math.floor(span.since.timestamp())}")
    if span.until is not None:
        argv.append(f"--until=@{math.ceil(span.until.timestamp())}")
    argv.append(f"--lines={count or 'all'}")
    if backwards:
        argv.append("--reverse")
    if follow:
        argv.append("--follow")
    return tuple(argv)


class Backwards:
    """Entries that come newest first. What begins with a blank is a further line of one."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._rest = b""
        self._entry: list[bytes] = []
        self._entries: deque[bytes] = deque()
        self._size = 0
        self.count = 0
        """How many entries there were."""

    def feed(self, data: bytes) -> bool:
        """Take what comes; whether there is room for more."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b" "):
                self._end()
                self.count += 1
            self._entry.append(line + b"\n")
        return not self.full

    @property
    def full(self) -> bool:
        """Whether there was more than there is room for."""
        return self._size > self._most

    def _end(self) -> None:
        entry = b"".join(self._entry)
        self._entry = []
        self._size += len(entry)
        if entry and not self.full:
            self._entries.appendleft(entry)

    def oldest_first(self) -> deque[bytes]:
        """The newest entries that there was room for, once all have come."""
        self._end()
        return self._entries
