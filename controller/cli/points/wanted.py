"""What `stead backup find` looks for: which entries fit, and which nodes cannot hold one. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from protocol.errors import InvalidError
from protocol.vault.entry import Entry, Kind
from protocol.vault.node import Root

KINDS = {kind.name.lower().replace("_", "-"): kind for kind in Kind}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,3})?)([kmgt]?)(?:i?b)?\Z")
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to be true of an entry; None asks for nothing.

    `names` are patterns of which one has to fit the last name of the path. Sizes are in
    bytes, both included; only files have one. Times are nanoseconds since 1970.
    """

    names: re.Pattern[str] | None = None
    kind: Kind | None = None
    least_bytes: int | None = None
    most_bytes: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether an entry is looked for."""
        if self.kind is not None and entry.mode >> 12 != self.kind:
            return False
        if self._asks_size and entry.mode >> 12 != Kind.FILE:
            return False
        if self.least_bytes is not None and entry.size < self.least_bytes:
            return False
        if self.most_bytes is not None and entry.size > self.most_bytes:
            return False
        if self.since_ns is not None and entry.mtime_ns < self.since_ns:
            return False
        if self.until_ns is not None and entry.mtime_ns > self.until_ns:
            return False
        return self.names is None or bool(
            self.names.match(entry.name.decode(errors="surrogateescape"))
        )

    def may_be_below(self, node: Root) -> bool:
        """Whether a node's totals allow that something below it fits."""
        if (self._asks_size or self.kind is Kind.FILE) and not node.files:
            return False
        if self.kind not in (None, Kind.FILE) and node.entries == node.files:
            return False
        return self.least_bytes is None or node.bytes >= self.least_bytes

    @property
    def _asks_size(self) -> bool:
        return self.least_bytes is not None or self.most_bytes is not None


def names_pattern(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """Patterns of a shell as one expression; None for none.

    >>> bool(names_pattern(["*.jpg", "*.png"]).match("cat.png"))
    True
    """
    if not patterns:
        return None
    return re.compile("|".join(fnmatch.translate(one) for one in patterns))


def parse_size(text: str) -> int:
    """Bytes from what a person writes, in powers of 1,024; INVALID for anything else.

    >>> parse_size("1.5M"), parse_size("300"), parse_size("2 GiB")
    (1572864, 300, 2147483648)
    """
    found = _SIZE.match(text.replace(" ", "").lower())
    if found is None:
        raise InvalidError(f"{text[:80]!r} is not a size such as 300, 20k, 1.5M or 2GiB")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))


def to_ns(at: datetime | None) -> int | None:
    """A point in time as files have it."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1) * 1000
