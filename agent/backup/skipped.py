"""Note what a backup or a restore could not do, with the reason, within bounded memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from protocol.vault.path import join

KEPT = 1_000
VANISHED: Final = "vanished during the backup"
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

    def not_read(self, path: bytes, error: OSError, *, gone: bool) -> None:
        """Note what the system refused; nothing is missing of what is `gone` by itself."""
        self.add(path, VANISHED if gone else reason_of(error), by_rule=gone)

    def not_found(
        self, parent: bytes, directory: int, failed: Sequence[tuple[bytes, OSError]]
    ) -> None:
        """Note names that were listed and then not found, with what the system said.

        What is not listed again, or is another thing by now, is gone.
        """
        listed = set(map(os.fsencode, os.listdir(directory))) if failed else set()
        for name, error in failed:
            is_new = name not in listed or inode_of(directory, name) is not None
            gone = isinstance(error, FileNotFoundError) and is_new
            self.not_read(join(parent, name), error, gone=gone)

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


def is_gone(directory: int, name: bytes, error: OSError, inode: int = 0) -> bool:
    """Whether what could not be found is not there any more, or another thing than `inode`.

    Some file systems show what nobody can open.
    """
    if not isinstance(error, FileNotFoundError):
        return False
    found = inode_of(directory, name)
    return found is None or bool(inode and found and found != inode)


def inode_of(directory: int, name: bytes) -> int | None:
    """The inode of something; 0 where that cannot be told, None where it is not there."""
    try:
        return os.stat(name or b".", dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None
    except OSError:
        return 0


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
