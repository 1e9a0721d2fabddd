"""Give restored things their owner, mode, attributes and times.

What cannot be set is told as a warning: the content is there all the same.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.backup.far_time import mtime_of
from agent.backup.restore.belonging import Belonging
from agent.backup.restore.fresh import UNFINISHED
from agent.backup.skipped import SkippedList, reason_of
from agent.metadata.attributes import drop_inherited
from agent.metadata.system import SYSTEM
from agent.metadata.unsettable import UNKNOWN, unsettable
from protocol.vault.entry import Entry, Kind, Owner
from protocol.vault.path import join

# EINVAL: a number that this user namespace does not know.
_NO_OWNER: Final = frozenset({errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOVERFLOW})

_NO_PLACE: Final = "{kind} of {count} restored: {system} has no place for it"
_MOST_KINDS: Final = 32


class Endowing:
    """Does so for one restore."""

    def __init__(self, belonging: Belonging, warnings: SkippedList) -> None:
        self._belonging = belonging
        self._warnings = warnings
        self._is_root = os.geteuid() == 0
        self._unset: Counter[str] = Counter()
        self._own_numbers = (os.geteuid(), os.getegid())

    def is_ours(self, entry: Entry) -> bool:
        """Whether what we make has the owner that it shall have."""
        return self._belonging.of(entry.owner) in (None, self._own_numbers)

    def is_unfinished(self, found: os.stat_result, entry: Entry) -> bool:
        """Whether a directory was made by a restore that was killed before it finished it."""
        owners = (os.geteuid(), (self._belonging.of(entry.owner) or (os.geteuid(), 0))[0])
        # Below a directory with this bit, every new one has it.
        return found.st_mode & 0o7777 & ~0o2000 == UNFINISHED and found.st_uid in owners

    def finish(self) -> None:
        """Say, once for each kind, what this system has no place for."""
        for kind, count in sorted(self._unset.items()):
            self._warnings.add(b"", _NO_PLACE.format(count=count, kind=kind, system=SYSTEM.name))
        self._unset.clear()

    def open(self, parent: bytes, entry: Entry, fd: int, *, is_set: bool = False) -> None:
        """An open file or directory; `is_set`: with owner and mode already. Raises `OSError`."""
        mode = 0
        if not is_set:
            mode = self._own(parent, entry, fd)
            drop_inherited(fd, entry.xattrs)
        # An owner may set attributes only of what its mode lets him write, so that comes last.
        if not entry.is_plain:
            self._count(entry)
            self._warn(parent, entry.name, SYSTEM.give(fd, entry))
        moment = mtime_of(entry)
        os.utime(fd, ns=(moment, moment))
        if not is_set:
            os.chmod(fd, mode)

    def at(self, parent: bytes, entry: Entry, fd: int, name: bytes) -> None:
        """Something that cannot be opened. Raises `OSError`."""
        # Whoever owns the folder may put something else in its place at any moment, so it is
        # held while its type is looked at, and changed through what holds it.
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            if os.fstat(held).st_mode >> 12 != entry.mode >> 12:
                raise OSError(errno.EEXIST, "something else was put in its place")
            if entry.mode >> 12 == Kind.SYMLINK:
                self._own(parent, entry, name, dir_fd=fd)
            else:
                through = Path(f"/proc/self/fd/{held}")
                mode = self._own(parent, entry, bytes(through))
                drop_inherited(bytes(through), entry.xattrs)
                through.chmod(mode)
        finally:
            os.close(held)
        if not entry.is_plain:
            self._count(entry)
            self._warn(parent, entry.name, SYSTEM.give_at(fd, name, entry))
        moment = mtime_of(entry)
        os.utime(name, ns=(moment, moment), dir_fd=fd, follow_symlinks=False)

    def _own(
        self, parent: bytes, entry: Entry, thing: int | bytes, dir_fd: int | None = None
    ) -> int:
        """Give something its owner; the permissions that it may have then.

        What cannot get its owner must not run with the rights of the one it has.
        """
        owner = self._belonging.of(entry.owner)
        is_owned = owner is not None
        try:
            if owner is not None and dir_fd is None:
                os.chown(thing, *owner)
            elif owner is not None:
                os.chown(thing, *owner, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_OWNER:
                raise
            self._warn_owner(parent, entry.name, entry.owner, error)
            is_owned = False
        if not is_owned and entry.mode >> 12 != Kind.DIRECTORY:
            return entry.mode & 0o1777
        return entry.mode & 0o7777

    def _warn_owner(self, parent: bytes, name: bytes, owner: Owner, error: OSError) -> None:
        if self._is_root or owner.uid != os.geteuid() or owner.gid != os.getegid():
            self._warnings.add(
                join(parent, name), f"owner {owner.uid}:{owner.gid}: {reason_of(error)}"
            )

    def no_place(self, kind: str) -> None:
        """Count one thing that has something which there is no place for."""
        is_new = kind not in self._unset
        self._unset[UNKNOWN if is_new and len(self._unset) >= _MOST_KINDS else kind] += 1

    def _count(self, entry: Entry) -> None:
        for kind in set(unsettable(entry, SYSTEM.name)):
            self.no_place(kind)

    def _warn(self, parent: bytes, name: bytes, reasons: Iterable[str]) -> None:
        for reason in reasons:
            self._warnings.add(join(parent, name), reason)
