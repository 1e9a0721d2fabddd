"""Note what a backup or a restore could not do, with the reason, within bounded memory."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from protocol.vault.path import join

KEPT = 1_000
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a system says where there is no room left."""


class Skipped(NamedTuple):
    """One thing that was left out. `by_rule`: left out on purpose, nothing is missing."""

    path: bytes
    reason: str
    by_rule: bool = False


@dataclass(slots=True)
class SkippedList:
    """Keeps the first `KEPT` and counts all."""

    kept: list[Skipped] = field(default_factory=list)
    count: int = 0
    missing: int = 0

    def add(self, path: bytes, reason: str, *, by_rule: bool = False) -> None:
        """Note one thing; `by_rule` ones do not make an outcome partial."""
        self.count += 1
        self.missing += not by_rule
        if len(self.kept) < KEPT:
            self.kept.append(Skipped(path, reason, by_rule))

    def join(self, other: SkippedList, before: bytes = b"") -> None:
        """Add what another noted; `before` goes before its paths."""
        self.count += other.count
        self.missing += other.missing
        room = max(0, KEPT - len(self.kept))
        self.kept += [one._replace(path=join(before, one.path)) for one in other.kept[:room]]

    def summary(self) -> str:
        """The first ten in one line, each with its reason."""
        return ", ".join(f"{shown(one.path)} ({one.reason})" for one in self.kept[:10])

    def as_json(self) -> list[dict[str, Any]]:
        """The kept ones for a result; names that are no text are escaped."""
        return [{"path": shown(one.path), "reason": one.reason} for one in self.kept]


def shown(path: bytes) -> str:
    """A path for people and JSON: absolute, what is no UTF-8 escaped.

    >>> shown(b"etc/hosts")
    '/etc/hosts'
    """
    return "/" + path.lstrip(b"/").decode(errors="backslashreplace")


def reason_of(error: OSError) -> str:
    """An operating system's refusal in its own words.

    >>> reason_of(PermissionError(13, "Permission denied"))
    'permission denied'
    """
    return (error.strerror or str(error)).lower()
