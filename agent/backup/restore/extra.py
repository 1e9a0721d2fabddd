"""Remove what a restore point does not have from the directories that were restored from it.

Directories are opened beneath the target without following links, and names are removed
relative to them, so nothing outside is ever reached. Nothing is removed in or behind what
is mounted below the restored subtree, nor in the agent's own home. What stays although it
is not in the restore point has a reason, see `agent.backup.restore.bounds`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from agent.backup.beneath import DIRECTORY, Beneath
from agent.backup.restore.bounds import Bounds
from agent.backup.restore.durable import Written
from agent.backup.restore.leftover import PREFIX
from agent.backup.skipped import SkippedList, reason_of, shown
from protocol.errors import InvalidError, SteadError
from protocol.vault.entry import Entry, Kind
from protocol.vault.path import join

LISTED: Final = 10_000
DEEPEST: Final = 200


@dataclass(slots=True)
class Removals:
    """What was removed, or would be: the first `LISTED` paths below the target, and all counted.

    `size` is that of files. `kept` is not in the restore point either and stays, with the reason.
    """

    count: int = 0
    size: int = 0
    paths: list[bytes] = field(default_factory=list)
    kept: SkippedList = field(default_factory=SkippedList)
    failed: SkippedList = field(default_factory=SkippedList)

    def join(self, other: Removals, before: bytes = b"") -> None:
        """Add what was removed elsewhere; `before` goes before its paths."""
        self.count += other.count
        self.size += other.size
        room = max(0, LISTED - len(self.paths))
        self.paths += [join(before, path) for path in other.paths[:room]]
        self.kept.join(other.kept, before)
        self.failed.join(other.failed, before)

    def as_json(self, word: str) -> dict[str, Any]:
        """For a result; `word` is what they are called there."""
        return {
            word: self.count,
            f"{word}_bytes": self.size,
            f"{word}_paths": [shown(path) for path in self.paths],
            "kept": self.kept.count,
            "kept_paths": self.kept.as_json()[:200],
        }


def nothing_removed(left: int) -> str:
    """Why nothing is removed after a restore that left things out.

    >>> nothing_removed(1)
    'nothing was removed: 1 thing could not be restored; see to it and restore again'
    """
    things, them = ("thing", "it") if left == 1 else ("things", "them")
    return (
        f"nothing was removed: {left} {things} could not be restored; see to {them} and restore "
        "again"
    )


def directories(found: Iterable[tuple[bytes, Entry]]) -> Iterator[tuple[bytes, set[bytes]]]:
    """Each directory among entries in key order, with the names that it has there.

    Also those that have none. A directory that is no entry itself is not given, but for the top
    of a tree. `InvalidError` when a directory comes out of order.
    """
    waiting: list[bytes] = []
    known: set[bytes] = set()
    is_first = True
    for parent, group in groupby(found, key=itemgetter(0)):
        if not is_first and parent not in known:
            raise InvalidError("this tree has a directory where none can be")
        is_first = False
        while waiting and waiting[-1] != parent:
            known.discard(waiting[-1])
            yield waiting.pop(), set()
        is_known = bool(waiting)
        if waiting:
            known.discard(waiting.pop())
        names: set[bytes] = set()
        below: list[bytes] = []
        for _, entry in group:
            is_known = is_known or not entry.name
            if entry.name:
                names.add(entry.name)
                if entry.mode >> 12 == Kind.DIRECTORY:
                    below.append(join(parent, entry.name))
        if is_known:
            yield parent, names
        waiting += reversed(below)
        known.update(below)
    while waiting:
        yield waiting.pop(), set()


class Extras:
    """Removes, or only looks when `act` is false. Use as a context.

    `strip` is what the paths of the tree begin with and those below the target do not; `own`
    are device and inode of directories that nothing is removed in.
    """

    def __init__(
        self,
        target: bytes,
        strip: bytes,
        bounds: Bounds,
        *,
        act: bool,
        own: frozenset[tuple[int, int]] = frozenset(),
        written: Written | None = None,
    ) -> None:
        self.removals = Removals()
        self._beneath = Beneath(target)
        self._prefix = len(strip) + 1 if strip else 0
        self._bounds = bounds
        self._act = act
        self._own = own
        self._written = written
        self._mount: bytes | None = None
        self._closed: list[bytes] = []
        """Directories in which, and below which, everything stays."""

    def __enter__(self) -> Extras:
        return self

    def __exit__(self, *_: object) -> None:
        self._beneath.close()

    def clear_all(self, found: Iterable[tuple[bytes, Entry]]) -> None:
        """Clear the directories of a restored subtree, given all of its entries in key order.

        Ends, and says so, where the entries cannot be read.
        """
        try:
            for directory, names in directories(found):
                self.clear(directory, names)
        except SteadError as error:
            self.removals.failed.add(b"", f"nothing more was removed: {error}")

    def clear(self, directory: bytes, names: set[bytes]) -> None:
        """Remove what one directory of the tree has besides `names`; the topmost comes first."""
        if any(directory.startswith(closed + b"/") for closed in self._closed):
            return
        try:
            fd = self._beneath.open(directory[self._prefix :])
        except OSError as error:
            self._close(directory, reason_of(error))
            return
        try:
            if self._is_within(directory, fd):
                self._clear(fd, directory, names, 0)
        finally:
            os.close(fd)

    def _is_within(self, directory: bytes, fd: int) -> bool:
        mount = mount_of(fd)
        if self._mount is None:
            # The first is the restored subtree itself, wherever that is mounted.
            self._mount = mount
        seen = os.fstat(fd)
        if mount != self._mount:
            self._close(directory, "something else is mounted there")
        elif (seen.st_dev, seen.st_ino) in self._own:
            self._close(directory, "the agent's own")
        else:
            return True
        return False

    def _clear(self, fd: int, directory: bytes, names: set[bytes], depth: int) -> bool:
        """Whether nothing that is not in `names` is left."""
        try:
            with os.scandir(fd) as found:
                extra = sorted(
                    name for one in found if (name := os.fsencode(one.name)) not in names
                )
        except OSError as error:
            self.removals.failed.add(directory[self._prefix :], reason_of(error))
            return False
        if extra and self._act and self._written is not None:
            self._written.note(fd)
        gone = [self._remove(fd, directory, name, depth) for name in extra]
        return all(gone)

    def _remove(self, fd: int, directory: bytes, name: bytes, depth: int) -> bool:
        path = join(directory, name)
        try:
            seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
            is_directory = stat.S_ISDIR(seen.st_mode)
            why = self._bounds.reason(
                directory, name, is_directory=is_directory, changed_at_ns=seen.st_ctime_ns
            )
            if name.startswith(PREFIX):
                why = "being written by a restore"
            if why is not None:
                self._keep(path, why)
                return False
            if is_directory and not self._empty(fd, path, name, depth):
                return False
            if self._act and is_directory:
                os.rmdir(name, dir_fd=fd)
            elif self._act:
                os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            self.removals.failed.add(path[self._prefix :], f"not removed: {reason_of(error)}")
            return False
        removals = self.removals
        removals.count += 1
        removals.size += seen.st_size if stat.S_ISREG(seen.st_mode) else 0
        if len(removals.paths) < LISTED:
            removals.paths.append(path[self._prefix :])
        return True

    def _empty(self, fd: int, path: bytes, name: bytes, depth: int) -> bool:
        if depth >= DEEPEST:
            self._keep(path, "lies too deep")
            return False
        below = os.open(name, DIRECTORY, dir_fd=fd)
        try:
            return self._is_within(path, below) and self._clear(below, path, set(), depth + 1)
        finally:
            os.close(below)

    def _close(self, directory: bytes, why: str) -> None:
        self._closed.append(directory)
        self._keep(directory, why)

    def _keep(self, path: bytes, why: str) -> None:
        self.removals.kept.add(path[self._prefix :], why)


def mount_of(fd: int) -> bytes:
    """The number of the mount that an open directory is on: tells bind mounts as well."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_bytes().splitlines():
        if line.startswith(b"mnt_id:"):
            return line.split(b":")[1].strip()
    raise OSError(None, "this kernel does not tell mounts apart")
