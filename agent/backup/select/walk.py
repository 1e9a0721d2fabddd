"""Walk file systems in the order of a tree's keys, without following any link.

All children of a directory come first, sorted by name, then what lies below the first
of its directories, and so on. Directories are opened relative to their parents, so a
link planted during the walk is never followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception's name
from typing import Final, NamedTuple

from agent.backup.beneath import Beneath
from agent.backup.select.choose import CACHE_TAG, CACHE_TAG_TEXT, Choice
from agent.backup.select.exclude import Place
from agent.backup.select.led import reason_of_link, reason_through
from agent.backup.select.places import Selection, select
from agent.backup.skipped import SkippedList, is_gone, reason_of
from protocol.vault.path import MAX_PATH_BYTES, children_prefix, join

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SLICE: Final = 4096
_OPEN_LEVELS: Final = 64
_DIRECTORY: Final = 4
_SYMLINK: Final = 10
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

Row = tuple[bytes, os.stat_result, bytes]
"""Name, what `lstat` said, and its line: name, NUL, and what stays the same while a file does."""

MARK_BYTES: Final = 56

_pack = Struct("<QQqqqIIII").pack
_LOW_63: Final = (1 << 63) - 1
_fields = attrgetter(
    "st_ino",
    "st_dev",
    "st_size",
    "st_mtime_ns",
    "st_ctime_ns",
    "st_mode",
    "st_uid",
    "st_gid",
    "st_nlink",
)
_ATIME_FREE: Final = getattr(os, "O_NOATIME", 0)


class Listing(NamedTuple):
    """Children of one directory, sorted. `fd` is the consumer's to close."""

    parent: bytes
    prefix: bytes
    fd: int
    rows: list[Row]


def line_of(name: bytes, stat: os.stat_result) -> bytes:
    """Name, NUL, and 56 bytes: inode, device, size, mtime, ctime, mode, owner, group, links."""
    return name + b"\0" + _mark(*_fields(stat))


def _mark(*fields: int) -> bytes:
    try:
        return _pack(*fields)
    except StructError:
        # Files of the year 1600 or 2446 exist; the low bits of their times tell them apart.
        inode, device, size, mtime, ctime, *rest = fields
        return _pack(inode, device, size, _low(mtime), _low(ctime), *rest)


def _low(time_ns: int) -> int:
    return (time_ns & _LOW_63) - (1 << 62)


class _Level:
    """A directory on the way down: its descriptor and the directories left to visit."""

    __slots__ = ("device", "fd", "identity", "left", "path", "place")

    def __init__(
        self, path: bytes, fd: int, stat: os.stat_result, place: Place | None = None
    ) -> None:
        self.path = path
        self.place = place
        self.fd = fd
        self.device = stat.st_dev
        self.identity = (stat.st_dev, stat.st_ino)
        self.left: list[tuple[bytes, Selection | None]] = []


class Walk:
    """One walk over normalised paths (see `select`); iterate it once.

    `own` are paths, without a first slash, whose content is left out. What cannot be
    visited is added to `skipped`. `start` is the directory that counts as the top.
    `choice` leaves things out below the paths.
    """

    def __init__(
        self,
        paths: Iterable[bytes],
        skipped: SkippedList,
        *,
        own: frozenset[bytes] = frozenset(),
        pseudo: frozenset[int] = frozenset(),
        start: bytes = b"/",
        choice: Choice | None = None,
    ) -> None:
        self._choice = choice
        self._paths = tuple(paths)
        self._selection = select(self._paths)
        self._skipped = skipped
        self._own = own
        self._pseudo = pseudo
        self._start = start
        self.found_paths = 0
        self.directories = 0

    def __iter__(self) -> Iterator[Listing]:
        fd = os.open(self._start, OPEN_DIRECTORY)
        stat = os.fstat(fd)
        yield Listing(b"", b"\0", os.dup(fd), [(b"", stat, line_of(b"", stat))])
        yield from self._descend(_Level(b"", fd, stat, self._place_of(b"")), self._selection)

    def children(self, path: bytes, beneath: Beneath) -> Iterator[Listing]:
        """Only what lies directly in one directory."""
        try:
            fd = beneath.open(path)
        except OSError as error:
            self._skipped.not_read(path, error, gone=isinstance(error, FileNotFoundError))
            return
        level = _Level(path, fd, os.fstat(fd), self._place_of(path))
        try:
            if self.leads_to_paths(path):
                yield from self._chosen(level, self._selection_at(path))
            else:
                yield from self._all(level, named=False)
        finally:
            os.close(fd)

    def below(self, path: bytes, beneath: Beneath) -> Iterator[Listing]:
        """Everything below one directory; nothing when it is none."""
        parent, name = os.path.split(path)
        try:
            fd = beneath.open(parent)
        except OSError as error:
            self.lost(path, error)
            return
        try:
            if os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode >> 12 != _DIRECTORY:
                return
            above = _Level(parent, fd, os.fstat(fd), self._place_of(parent))
            level = self._open(above, name, None)
        except OSError as error:
            self.lost(path, error)
            return
        finally:
            os.close(fd)
        if level is not None:
            yield from self._descend(level, None)

    def lost(self, path: bytes, error: OSError) -> None:
        """Tell why something could not be come to, unless it is simply not there any more."""
        if error.errno not in _NOT_THERE:
            self._skipped.add(path, reason_of(error))

    def leads_to_paths(self, path: bytes) -> bool:
        """Whether only some of what a directory holds is wanted."""
        place = self._selection_at(path)
        return not place.whole

    def takes(self, path: bytes) -> bool:
        """Whether a directory is backed up, as far as names tell."""
        place = self._choice.top if self._choice else None
        if place is None:
            return True
        selection: Selection | None = self._selection
        whole = b""
        for name in path.split(b"/") if path else ():
            is_chosen = selection is None or selection.whole
            whole = join(whole, name)
            may_go = is_chosen and place.look is not None and place.look.match(name)
            if may_go and place.rule_of(whole, is_directory=True):
                return False
            selection = None if selection is None else selection.children.get(name)
            place = place.below(name)
        return True

    def _place_of(self, path: bytes) -> Place | None:
        if self._choice is None:
            return None
        place = self._choice.top
        for name in path.split(b"/") if path else ():
            place = place.below(name)
        return place

    def _selection_at(self, path: bytes) -> Selection:
        place = self._selection
        for name in path.split(b"/") if path else ():
            if place.whole:
                break
            place = place.children.get(name, Selection(whole=True))
        return place

    def _descend(self, top: _Level, selection: Selection | None) -> Iterator[Listing]:
        levels = [top]
        try:
            yield from self._enter(top, selection)
            while levels:
                level = levels[-1]
                if not level.left:
                    self._leave(levels)
                    continue
                name, selection = level.left.pop()
                below = self._open(level, name, selection)
                if below is None:
                    continue
                levels.append(below)
                if len(levels) > _OPEN_LEVELS:
                    far = levels[-_OPEN_LEVELS]
                    os.close(far.fd)
                    far.fd = -1
                yield from self._enter(below, selection)
        finally:
            for level in levels:
                if level.fd >= 0:
                    os.close(level.fd)

    def _leave(self, levels: list[_Level]) -> None:
        """Go up one level; a parent that was closed meanwhile is found again by `..`."""
        done = levels.pop()
        if levels and levels[-1].fd < 0:
            parent = levels[-1]
            try:
                parent.fd = os.open(b"..", OPEN_DIRECTORY, dir_fd=done.fd)
                stat = os.fstat(parent.fd)
                moved = (stat.st_dev, stat.st_ino) != parent.identity
            except OSError:
                moved = True
            if moved:
                for name, _ in parent.left:
                    self._skipped.add(join(parent.path, name), "moved while it was read")
                parent.left.clear()
                if parent.fd < 0:
                    parent.fd = os.dup(done.fd)
        os.close(done.fd)

    def _open(self, level: _Level, name: bytes, selection: Selection | None) -> _Level | None:
        path = join(level.path, name)
        if path in self._own:
            self._skipped.add(path, "the agent's own cache", by_rule=True)
            return None
        if len(path) > MAX_PATH_BYTES - 4096:
            self._skipped.add(path, "its path is too long")
            return None
        try:
            fd = os.open(name, OPEN_DIRECTORY | _ATIME_FREE, dir_fd=level.fd)
        except OSError as error:
            if not isinstance(error, PermissionError):
                self._skipped.not_read(path, error, gone=is_gone(level.fd, name, error))
                return None
            try:
                fd = os.open(name, OPEN_DIRECTORY, dir_fd=level.fd)
            except OSError as denied:
                self._skipped.add(path, reason_of(denied))
                return None
        stat = os.fstat(fd)
        is_pseudo = stat.st_dev in self._pseudo and stat.st_dev != level.device
        # What leads to a named path is passed through: /dev/shm is storage, /dev is not.
        if is_pseudo and (selection is None or selection.whole):
            os.close(fd)
            self._skipped.add(path, "pseudo file system", by_rule=True)
            return None
        return _Level(path, fd, stat, level.place.below(name) if level.place else None)

    def _enter(self, level: _Level, selection: Selection | None) -> Iterator[Listing]:
        """The children of a directory, and note which directories to visit afterwards."""
        if selection is None or selection.whole:
            if selection is not None:
                self.found_paths += 1
            yield from self._all(level, named=selection is not None)
        else:
            yield from self._chosen(level, selection)
        self.directories += len(level.left)
        level.left.reverse()

    def _all(self, level: _Level, *, named: bool) -> Iterator[Listing]:
        prefix = children_prefix(level.path)
        try:
            with os.scandir(level.fd) as scan:
                found = list(islice(scan, SLICE + 1))
                if len(found) > SLICE:
                    names = [entry.name for entry in found]
                    found.clear()
                    names += [entry.name for entry in scan]
                    yield from self._many(level, prefix, names, named=named)
                    return
        except OSError as error:
            self._skipped.add(level.path, reason_of(error))
            return
        rows: list[Row] = []
        failed: list[tuple[bytes, OSError]] = []
        for entry in found:
            try:
                stat = entry.stat(follow_symlinks=False)
            except OSError as error:
                failed.append((os.fsencode(entry.name), error))
                continue
            name = entry.name.encode("utf-8", "surrogateescape")
            try:
                line = name + b"\0" + _pack(*_fields(stat))
            except StructError:
                line = line_of(name, stat)
            rows.append((name, stat, line))
        self._skipped.not_found(level.path, level.fd, failed)
        rows.sort()
        if len({row[0] for row in rows}) < len(rows):
            # Some file systems list a name twice.
            rows = list({row[0]: row for row in rows}.values())
        if level.place is not None:
            is_cache = not named and any(entry.name == CACHE_TAG_TEXT for entry in found)
            rows = self._chosen_of(level, rows, is_cache=is_cache)
        level.left += [(name, None) for name, stat, _ in rows if stat.st_mode >> 12 == _DIRECTORY]
        if rows:
            yield Listing(level.path, prefix, os.dup(level.fd), rows)

    def _chosen_of(self, level: _Level, rows: list[Row], *, is_cache: bool) -> list[Row]:
        assert self._choice is not None
        assert level.place is not None
        return self._choice.keep(
            level.path, level.place, level.fd, level.device, rows, is_cache=is_cache
        )

    def _many(
        self, level: _Level, prefix: bytes, found: list[str], *, named: bool
    ) -> Iterator[Listing]:
        """A directory too large to keep what is known of all of its children at once."""
        names = sorted(set(map(os.fsencode, found)))
        is_cache = not named and CACHE_TAG in names
        found.clear()
        for start in range(0, len(names), SLICE):
            rows: list[Row] = []
            failed: list[tuple[bytes, OSError]] = []
            for name in names[start : start + SLICE]:
                try:
                    stat = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
                except OSError as error:
                    failed.append((name, error))
                    continue
                rows.append((name, stat, line_of(name, stat)))
            self._skipped.not_found(level.path, level.fd, failed)
            if level.place is not None:
                rows = self._chosen_of(level, rows, is_cache=is_cache)
            level.left += [(row[0], None) for row in rows if row[1].st_mode >> 12 == _DIRECTORY]
            if rows:
                yield Listing(level.path, prefix, os.dup(level.fd), rows)

    def _chosen(self, level: _Level, selection: Selection) -> Iterator[Listing]:
        """Only the children that lead to what is wanted."""
        rows: list[Row] = []
        for name in sorted(selection.children):
            wanted = selection.children[name]
            path = join(level.path, name)
            try:
                stat = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
            except OSError as error:
                self._lost(path, wanted, reason_of(error))
                continue
            kind = stat.st_mode >> 12
            if kind == _DIRECTORY:
                level.left.append((name, wanted))
            elif wanted.whole:
                self.found_paths += 1
                reason = kind == _SYMLINK and reason_of_link(self._start, path, self._paths)
                if reason:
                    self._skipped.add(path, reason)
            elif kind == _SYMLINK:
                self._lost(path, wanted, reason_through(self._start, path))
            else:
                self._lost(path, wanted, "is not a directory")
            rows.append((name, stat, line_of(name, stat)))
        if rows:
            yield Listing(level.path, children_prefix(level.path), os.dup(level.fd), rows)

    def _lost(self, path: bytes, wanted: Selection, reason: str) -> None:
        """Report every path of the backup set that lies at or below a lost place."""
        if wanted.whole:
            self._skipped.add(path, reason)
        for name, child in wanted.children.items():
            self._lost(join(path, name), child, reason)
