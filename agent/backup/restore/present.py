"""See what lies where a restore is going to write, and whether it has to.

A file counts as the same when type, size, time of change, mode, owner and attributes
are: so a restore that was interrupted goes on with what is missing, and one in place
writes only the differences. Looked at shortly before it is written; whoever writes
relies on nothing said here but for leaving alone what is the same.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from agent.backup.beneath import DIRECTORY, Beneath
from agent.backup.far_time import mtime_of
from agent.backup.restore.belonging import Belonging
from agent.backup.restore.held import holds_extents, holds_pieces, open_file
from agent.backup.restore.named_content import NamedContent, is_listed
from agent.metadata.attributes import SETTABLE, xattrs_at
from agent.metadata.system import SYSTEM
from agent.metadata.unsettable import has_place
from protocol.vault.chunk import Buffer, Sealer
from protocol.vault.entry import Entry, Extent, Kind
from protocol.vault.path import join

_TIMELESS: Final = (Kind.FIFO, Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE, Kind.SOCKET)


class Change(StrEnum):
    """What a restore has to do about one thing; what is BLOCKED it leaves as it is."""

    SAME = "same"
    CREATE = "create"
    OVERWRITE = "overwrite"
    ATTRIBUTES = "attributes"
    BLOCKED = "blocked"


def is_same(entry: Entry, found: os.stat_result, owner: tuple[int, int] | None) -> bool:
    """Whether what was found is what the entry says, as far as `stat` can tell.

    Without an owner neither that nor the rights to act as another count: who may not set
    them would find a difference for ever.
    """
    kind = entry.mode >> 12
    if found.st_mode >> 12 != kind:
        return False
    if kind == Kind.FILE and found.st_size != entry.size:
        return False
    if kind not in _TIMELESS and found.st_mtime_ns != mtime_of(entry):
        return False
    if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE) and found.st_rdev != entry.rdev:
        return False
    if owner is not None and (found.st_uid, found.st_gid) != owner:
        return False
    rights = 0o1777 if owner is None else 0o7777
    return kind == Kind.SYMLINK or not (found.st_mode ^ entry.mode) & rights


class Present:
    """Looks below one directory, in the order of the tree. `close` it."""

    def __init__(self, target: bytes, belonging: Belonging, *, exact: bool) -> None:
        """`exact`: owners and attributes count as well."""
        self._belonging = belonging
        self._beneath = Beneath(target)
        self._exact = exact
        self._owners = exact and os.geteuid() == 0
        self._parent: bytes | None = None
        self._fd = -1
        # The topmost directories that are not there yet: nothing below them is.
        self._new: set[bytes] = set()
        # Where directories cannot be made.
        self._blocked: set[bytes] = set()
        # Where the first name of a group of hard links leads; None when it is written anew.
        self._groups: dict[bytes, tuple[int, int] | None] = {}

    def change(self, parent: bytes, entry: Entry) -> Change:
        """What has to be done; a place that cannot be looked at is taken for an empty one.

        ATTRIBUTES is said of directories that are there and have others, BLOCKED where a
        directory stands in the way of something else or something else in that of a directory.
        """
        change, found = self._look(parent, entry)
        is_directory = entry.mode >> 12 == Kind.DIRECTORY
        if found is not None and (found.st_mode >> 12 == Kind.DIRECTORY) != is_directory:
            if is_directory:
                self._blocked.add(join(parent, entry.name))
            return Change.BLOCKED
        if change is Change.OVERWRITE and is_directory:
            return Change.ATTRIBUTES
        if entry.link_group is None or not self._exact:
            return change
        same = change is Change.SAME and found is not None
        inode = (found.st_dev, found.st_ino) if same and found is not None else None
        if self._groups.setdefault(entry.link_group, inode) == inode:
            return change
        return Change.OVERWRITE if change is Change.SAME else change

    def is_blocked(self, path: bytes) -> bool:
        """Whether BLOCKED was said of this directory or one above it."""
        return _covers(self._blocked, path)

    def identity(self, parent: bytes, name: bytes) -> tuple[int, int] | None:
        """Device and inode of what is there; None where nothing can be found."""
        fd = self._enter(parent)
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False) if fd >= 0 else None
        except OSError:
            return None
        return None if found is None else (found.st_dev, found.st_ino)

    def _look(self, parent: bytes, entry: Entry) -> tuple[Change, os.stat_result | None]:
        fd = self._enter(parent)
        if fd < 0:
            return Change.CREATE, None
        try:
            found = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if entry.mode >> 12 == Kind.DIRECTORY and isinstance(error, FileNotFoundError):
                self._new.add(join(parent, entry.name))
            return Change.CREATE, None
        try:
            owner = self._belonging.of(entry.owner) if self._owners else None
            same = is_same(entry, found, owner)
            if same and entry.mode >> 12 == Kind.SYMLINK:
                same = os.readlink(entry.name, dir_fd=fd) == entry.target
            if same and self._exact:
                same = self._attributes(fd, entry.name) == _kept(entry, owners=self._owners)
                same = same and self._has_streams(fd, entry, found)
        except FileNotFoundError:
            return Change.CREATE, None
        except OSError:
            return Change.OVERWRITE, found
        return (Change.SAME if same else Change.OVERWRITE), found

    def holds(
        self, parent: bytes, entry: Entry, extents: Iterable[Extent], sealer: Sealer
    ) -> bool | None:
        """See `holds_extents`; what cannot be read is taken for another."""
        try:
            with self._reading(parent, entry.name) as fd:
                return holds_extents(fd, entry, extents, sealer)
        except OSError:
            return False

    def holds_pieces(self, parent: bytes, entry: Entry, pieces: Sequence[Buffer | int]) -> bool:
        """The same with the content at hand."""
        try:
            with self._reading(parent, entry.name) as fd:
                return holds_pieces(fd, pieces)
        except OSError:
            return False

    def holds_streams(self, parent: bytes, entry: Entry, content: NamedContent) -> bool:
        """The same of the named streams of a file, those that have no place there aside."""
        try:
            with self._beneath.opened(parent) as directory:
                found = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
                listing = SYSTEM.streams(directory, entry.name, found)
                return is_listed(entry, listing) and (
                    listing is None
                    or all(
                        content.is_held(directory, entry.name, one)
                        for one in entry.streams
                        if SYSTEM.takes_stream(one.name)
                    )
                )
        except OSError:
            return False

    def takes_streams(self, parent: bytes) -> bool:
        """Whether what comes into a directory, there or not yet, has a place for streams."""
        while True:
            try:
                with self._beneath.opened(parent) as directory:
                    return SYSTEM.streams(directory, b"", os.fstat(directory)) is not None
            except OSError:
                if not parent:
                    return False
                parent = parent.rpartition(b"/")[0]

    def _has_streams(self, fd: int, entry: Entry, found: os.stat_result) -> bool:
        """Whether a file has the streams of an entry by name and length; or a directory that
        should have some."""
        if entry.mode >> 12 == Kind.FILE:
            return is_listed(entry, SYSTEM.streams(fd, entry.name, found))
        if not entry.streams:
            return True
        directory = os.open(entry.name, DIRECTORY, dir_fd=fd)
        try:
            return is_listed(entry, SYSTEM.streams(directory, b"", found))
        finally:
            os.close(directory)

    @contextmanager
    def _reading(self, parent: bytes, name: bytes) -> Iterator[int]:
        with self._beneath.opened(parent) as directory:
            fd = open_file(directory, name)
        try:
            yield fd
        finally:
            os.close(fd)

    def _attributes(self, fd: int, name: bytes) -> dict[bytes, bytes]:
        found = dict(xattrs_at(fd, name).xattrs)
        return found if self._owners else _of_owner(found)

    def _enter(self, parent: bytes) -> int:
        if parent == self._parent:
            return self._fd
        self._leave()
        self._parent = parent
        if not _covers(self._new, parent):
            try:
                self._fd = self._beneath.open(parent)
            except OSError:
                self._new.add(parent)
        return self._fd

    def _leave(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Close what is open."""
        self._leave()
        self._beneath.close()


def _covers(directories: Collection[bytes], path: bytes) -> bool:
    """Whether a path is one of them or lies below one."""
    while path and directories:
        if path in directories:
            return True
        path = path.rpartition(b"/")[0]
    return False


def _kept(entry: Entry, *, owners: bool) -> dict[bytes, bytes]:
    here = SYSTEM.name
    attributes = {name: value for name, value in entry.xattrs if has_place(name, here)}
    return attributes if owners else _of_owner(attributes)


def _of_owner(attributes: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Those that whoever owns a file may set."""
    return {name: value for name, value in attributes.items() if name.startswith(SETTABLE)}
