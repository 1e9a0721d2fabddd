"""Compare a part of a restore point with what is there now, and change nothing.

The entries of the tree and the rows of a walk come in one order, so both are read once,
side by side, and no more is held than a leaf and a directory. What cannot be looked at is
noted, and nothing is said of what lies below it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.backup.beneath import Beneath
from agent.backup.cut.read import open_file
from agent.backup.far_time import near, with_time
from agent.backup.owners import Owners
from agent.backup.restore.fetch import Fetcher
from agent.backup.restore.held import holds_extents, holds_pieces
from agent.backup.restore.named_content import NamedContent
from agent.backup.select.walk import OPEN_DIRECTORY, Listing, Row, Walk, line_of
from agent.backup.send.vault import DATA_LOSS
from agent.backup.skipped import SkippedList, reason_of, shown
from agent.metadata.extras import NOTHING, Extras
from agent.metadata.system import SYSTEM
from protocol.errors import InvalidError, SteadError
from protocol.vault.chunk import Sealer
from protocol.vault.comparison import Difference, side_of
from protocol.vault.differences import differences, is_folder_time
from protocol.vault.entry import Entry, Kind, Stream
from protocol.vault.path import children_prefix, join
from protocol.vault.reader import TreeReader

Found = tuple[bytes, Entry]

_FILE, _DIRECTORY, _SYMLINK = int(Kind.FILE), int(Kind.DIRECTORY), int(Kind.SYMLINK)
_DEVICES: Final = (int(Kind.CHARACTER_DEVICE), int(Kind.BLOCK_DEVICE))
_OTHER_LINK: Final = b"\0"
"""Stands for another group of hard links; no path is this."""


class Unseen(SkippedList):
    """What could not be looked at. A path that is simply gone is none of it."""

    def __init__(self, top: bytes) -> None:
        super().__init__()
        self._top = top.rstrip(b"/") + b"/"
        self._paths: set[bytes] = set()

    def add(self, path: bytes, reason: str, *, by_rule: bool = False) -> None:
        """Note one thing, unless nothing is there."""
        if not os.path.lexists(self._top + path):
            return
        if not by_rule:
            self._paths.add(path)
        super().add(path, reason, by_rule=by_rule)

    def covers(self, path: bytes) -> bool:
        """Whether a path, or one above it, could not be looked at."""
        if not self._paths:
            return False
        while path not in self._paths:
            if not path:
                return False
            path = path.rpartition(b"/")[0]
        return True


def is_at_or_below(path: bytes, directory: bytes) -> bool:
    """Whether one normalised path is another or lies below it.

    >>> is_at_or_below(b"etc/ssh", b"etc"), is_at_or_below(b"etcetera", b"etc")
    (True, False)
    """
    return not directory or path == directory or path.startswith(directory + b"/")


def paths_within(path: bytes, paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """What of the paths of a backup lies at or below one path; that path if it lies in one.

    >>> paths_within(b"", [b"etc", b"home"]), paths_within(b"etc/ssh", [b"etc"])
    ((b'etc', b'home'), (b'etc/ssh',))
    """
    paths = tuple(paths)
    below = tuple(one for one in paths if is_at_or_below(one, path))
    if below:
        return below
    return (path,) if any(is_at_or_below(path, one) for one in paths) else ()


def listings_of(walk: Walk, path: bytes, paths: Iterable[bytes], top: bytes) -> Iterator[Listing]:
    """What a backup of `paths` would meet at a path and below it; descriptors are the caller's.

    `walk` is one over `paths`. Raises INVALID where no backup of them would go.
    """
    paths = tuple(paths)
    if any(is_at_or_below(one, path) for one in paths):
        for listing in walk:
            rows = [r for r in listing.rows if is_at_or_below(join(listing.parent, r[0]), path)]
            if rows:
                yield listing._replace(rows=rows)
            else:
                os.close(listing.fd)
        return
    if not any(is_at_or_below(path, one) for one in paths):
        raise InvalidError(
            "that is not below the paths that were backed up; it may be a program's output, "
            "which is nowhere on the machine"
        )
    if not walk.takes(path):
        return
    beneath = Beneath(top)
    parent, _, name = path.rpartition(b"/")
    try:
        try:
            fd = beneath.open(parent)
        except OSError:
            return
        try:
            stat = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            os.close(fd)
            return
        yield Listing(parent, children_prefix(parent), fd, [(name, stat, line_of(name, stat))])
        yield from walk.below(path, beneath)
    finally:
        beneath.close()


@dataclass(slots=True)
class Live:
    """One comparison; iterate `differences` once.

    `reader` and `fetcher` read the restore point, `sealer` knows its chunks by content.
    `is_meant` says whether a path is one that a walk would come to: the output of programs
    is in a restore point and on no disk. `content` and `quick` as orders have them.
    """

    reader: TreeReader
    fetcher: Fetcher
    sealer: Sealer
    unseen: Unseen
    is_meant: Callable[[bytes], bool]
    content: bool = False
    quick: bool = False
    tick: Callable[[Mapping[str, int]], None] = lambda _counts: None
    entries: int = 0
    read_bytes: int = 0
    _owners: Owners = field(default_factory=Owners)
    _groups: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _inodes: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def differences(
        self, tree: Iterable[Found], listings: Iterable[Listing]
    ) -> Iterator[Difference]:
        """What differs, in the order of the tree."""
        olds = iter(tree)
        old = next(olds, None)
        for parent, prefix, fd, rows in listings:
            try:
                for row in rows:
                    key = prefix + row[0]
                    while old is not None and _key(old) < key:
                        yield from self._removed(old)
                        old = next(olds, None)
                    self._count()
                    if old is not None and _key(old) == key:
                        yield from self._both(parent, fd, row, old[1])
                        old = next(olds, None)
                    else:
                        yield from self._added(parent, fd, row)
            finally:
                os.close(fd)
        while old is not None:
            yield from self._removed(old)
            old = next(olds, None)

    def _count(self) -> None:
        self.entries += 1
        if not self.entries & 255:
            self.tick({"files": self.entries, "bytes": self.read_bytes})

    def _removed(self, old: Found) -> Iterator[Difference]:
        self._count()
        parent, entry = old
        path = join(parent, entry.name)
        if self.is_meant(path) and not self.unseen.covers(path):
            yield Difference(parent, entry.name, (), side_of(entry), None)

    def _added(self, parent: bytes, fd: int, row: Row) -> Iterator[Difference]:
        name, stat, _ = row
        if stat.st_mode >> 12 == _FILE:
            try:
                os.close(open_file(fd, name))
            except FileNotFoundError:
                return
            except OSError as error:
                # A backup could not have read it either.
                self.unseen.add(join(parent, name), reason_of(error))
                return
        yield Difference(parent, name, (), None, side_of(self._entry(fd, row)))

    def _both(self, parent: bytes, fd: int, row: Row, old: Entry) -> Iterator[Difference]:
        name, stat, _ = row
        kind = stat.st_mode >> 12
        file = -1
        try:
            if kind == _FILE and kind == old.mode >> 12:
                file = open_file(fd, name)
            new = self._entry(fd, row)
            if kind == old.mode >> 12:
                new = self._whole(parent, fd, file, new, stat, old)
            # Named streams were compared when they were listed.
            what = differences(
                old, new, lambda was, _: was is old and self._holds(parent, file, was)
            )
        except FileNotFoundError:
            yield Difference(parent, name, (), side_of(old), None)
            return
        except OSError as error:
            self.unseen.add(join(parent, name), reason_of(error))
            return
        finally:
            if file >= 0:
                os.close(file)
        if what and not is_folder_time(old, new, what):
            yield Difference(parent, name, what, side_of(old), side_of(new))

    def _entry(self, fd: int, row: Row) -> Entry:
        """What `stat` says of a row, and where a symbolic link leads."""
        name, stat, _ = row
        kind = stat.st_mode >> 12
        target = b""
        if kind == _SYMLINK:
            try:
                target = os.readlink(name, dir_fd=fd)
            except OSError:
                # It is another thing by now; the next comparison will say so.
                target = b""
        return Entry(
            name,
            stat.st_mode,
            self._owners.of(stat.st_uid, stat.st_gid),
            near(stat.st_mtime_ns),
            stat.st_size if kind == _FILE else 0,
            target=target,
            rdev=stat.st_rdev if kind in _DEVICES else 0,
        )

    def _whole(
        self,
        parent: bytes,
        fd: int,
        file: int,
        new: Entry,
        stat: os.stat_result,
        old: Entry,
    ) -> Entry:
        """The entry with all that a backup would note, its content where `old` has it if that
        is believed.
        """
        kind = stat.st_mode >> 12
        is_same = new.mtime_ns == old.mtime_ns and not self.content
        streams: tuple[Stream, ...] = ()
        if kind == _FILE:
            extras = SYSTEM.of_open(file)
            streams = self._streams(parent, fd, new.name, stat, old)
        elif kind == _DIRECTORY:
            extras, streams = self._of_directory(parent, fd, stat, old)
        else:
            extras = SYSTEM.at(fd, new.name)
        is_believed = kind != _FILE or (new.size == old.size and (is_same or not old.size))
        return Entry(
            new.name,
            new.mode,
            new.owner,
            new.mtime_ns,
            new.size,
            old.extents if is_believed else (),
            old.inline if is_believed else None,
            new.target,
            new.rdev,
            old.depth if is_believed else 0,
            extras.xattrs,
            self._link_group(stat, old) if kind != _DIRECTORY else None,
            born_ns=old.born_ns if extras.born_ns is None else extras.born_ns,
            streams=streams,
            extensions=with_time(extras.extensions, stat.st_mtime_ns),
        )

    def _of_directory(
        self, parent: bytes, fd: int, stat: os.stat_result, old: Entry
    ) -> tuple[Extras, tuple[Stream, ...]]:
        try:
            directory = os.open(old.name, OPEN_DIRECTORY, dir_fd=fd) if old.name else os.dup(fd)
        except PermissionError:
            # A backup notes none either; what is in it is not seen, and that is noted.
            return NOTHING, ()
        try:
            return SYSTEM.of_open(directory), self._streams(parent, directory, b"", stat, old)
        finally:
            os.close(directory)

    def _streams(
        self, parent: bytes, directory: int, name: bytes, stat: os.stat_result, old: Entry
    ) -> tuple[Stream, ...]:
        """The streams that are there: those that are the old ones, and others by name and size.

        Where the volume has no place for any, nobody can have changed them.
        """
        listing = SYSTEM.streams(directory, name, stat)
        if listing is None:
            return old.streams
        is_believed = near(stat.st_mtime_ns) == old.mtime_ns and not self.content
        known = {(one.name, one.size): one for one in old.streams}
        found: list[Stream] = []
        for one in listing.streams:
            was = known.get((one.name, one.size))
            is_old = was is not None and (
                is_believed or self._holds_stream(parent, directory, name, old, was)
            )
            found.append(was if was is not None and is_old else Stream(one.name, one.size))
        return tuple(found)

    def _holds_stream(
        self, parent: bytes, directory: int, name: bytes, old: Entry, was: Stream
    ) -> bool:
        if self.quick:
            return False
        content = NamedContent(self.reader, self.fetcher, self.sealer)
        try:
            held = content.is_held(directory, name, was)
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            path = join(parent, old.name) + b":" + was.name
            self.unseen.add(join(parent, old.name), f"{shown(path)} is lost: {error}")
            return True
        self.read_bytes += was.size
        return held

    def _link_group(self, stat: os.stat_result, old: Entry) -> bytes | None:
        """The group of the old entry while its names still are the names of one file."""
        if stat.st_nlink < 2:
            return None
        inode = (stat.st_dev, stat.st_ino)
        group = old.link_group
        if group is None:
            return _OTHER_LINK
        is_one = self._groups.setdefault(inode, group) == group
        return group if self._inodes.setdefault(group, inode) == inode and is_one else _OTHER_LINK

    def _holds(self, parent: bytes, file: int, old: Entry) -> bool:
        """Whether an open file of the same size has the old content."""
        if self.quick:
            return False
        try:
            extents = self.reader.extents(old.extents, old.depth)
            held = holds_extents(file, old, extents, self.sealer)
            if held is None:
                held = self._holds_slices(file, old)
        except SteadError as error:
            if error.code not in DATA_LOSS:
                raise
            self.unseen.add(join(parent, old.name), f"its content is lost: {error}")
            return True
        self.read_bytes += old.size
        return held

    def _holds_slices(self, file: int, old: Entry) -> bool:
        place = 0
        for extent in self.reader.extents(old.extents, old.depth):
            reference = extent.reference
            piece: memoryview | int = extent.length
            if reference is not None:
                known = self.fetcher.has(reference.id)
                calls = [] if known else self.fetcher.start([reference])
                wanted = {reference.id: reference}
                window = self.fetcher.plain(wanted, self.fetcher.open(wanted, calls))
                plain = window[reference.id]
                if isinstance(plain, SteadError):
                    raise plain
                self.fetcher.keep(window)
                piece = memoryview(plain)[extent.offset : extent.offset + extent.length]
            if not holds_pieces(file, [piece], place):
                return False
            place += extent.length
        return True


def _key(found: Found) -> bytes:
    return children_prefix(found[0]) + found[1].name
