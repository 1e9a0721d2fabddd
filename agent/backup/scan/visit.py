"""Go through the previous tree and look at the file system only where it may have changed.

Pieces come in key order, as from `merge`: whole nodes that nothing has touched, entries
that are kept as they are, and rows to look at one by one. A directory that appeared, or
that is another one than before, is looked at with all below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Final, NamedTuple

from agent.backup.beneath import Beneath
from agent.backup.select.commands import Streams
from agent.backup.select.walk import MARK_BYTES, Listing, Row, Walk, line_of
from agent.backup.tree.merge import Known, Mixed, Segment
from agent.backup.tree.nodes import Block
from agent.backup.tree.state import Previous, identity_of
from agent.watch.mounts import is_below
from protocol.vault.entry import Entry
from protocol.vault.path import below_prefix, children_prefix, join

_DIRECTORY: Final = 4
_ROW, _CHILDREN, _ALL, _GONE = range(4)

Found = tuple[bytes, Entry, bytes]
"""Directory, entry, mark."""


class Whole(NamedTuple):
    """A node with all below it, unchanged."""

    block: Block


class Kept(NamedTuple):
    """Single unchanged entries."""

    found: list[Found]


class Dirty(NamedTuple):
    """What to look at: single directories, and others with all below them."""

    directories: frozenset[bytes]
    subtrees: frozenset[bytes]


class _Cursor:
    """Reads the previous tree once, from left to right, in pieces as large as possible."""

    def __init__(self, previous: Previous) -> None:
        assert previous.head is not None
        self._previous = previous
        self._blocks = [previous.head.top]
        self._leaf: list[Found] = []
        self._place = 0
        self.dropped_directories = 0

    def before(self, low: bytes | None) -> Iterator[Whole | Kept]:
        """All up to a key, that excluded; without one all that is left."""
        while True:
            kept: list[Found] = []
            while self._place < len(self._leaf):
                found = self._leaf[self._place]
                if low is not None and _key(found) >= low:
                    break
                kept.append(found)
                self._place += 1
            if kept:
                yield Kept(kept)
            if self._place < len(self._leaf) or not self._blocks:
                return
            if low is None or self._blocks[-1].last_key < low:
                yield Whole(self._blocks.pop())
            else:
                self._descend()

    def within(self, high: bytes, prefix: bytes) -> dict[bytes, tuple[Entry, bytes]]:
        """Pass all up to a key, that excluded; by name, what has the prefix just so."""
        passed: dict[bytes, tuple[Entry, bytes]] = {}
        while True:
            while self._place < len(self._leaf):
                found = self._leaf[self._place]
                key = _key(found)
                if key >= high:
                    return passed
                self._place += 1
                entry = found[1]
                self.dropped_directories += entry.mode >> 12 == _DIRECTORY and bool(entry.name)
                if key.startswith(prefix):
                    passed[entry.name] = (entry, found[2])
            if not self._blocks:
                return passed
            self._descend()

    def _descend(self) -> None:
        block = self._blocks.pop()
        if block.node().level:
            self._blocks.extend(reversed(self._previous.below(block)))
        else:
            self._leaf = self._previous.entries(block)
            self._place = 0


class Visit:
    """One such run; iterate it once. Raises `StateDamagedError`.

    `walk` looks at what there is, and its rules hold here as well. `start` is the directory
    that counts as the top. `streams` are on no disk and new in each run.
    """

    def __init__(
        self,
        walk: Walk,
        previous: Previous,
        dirty: Dirty,
        paths: Iterable[bytes],
        start: bytes,
        streams: Streams | None = None,
    ) -> None:
        assert previous.head is not None
        self._walk = walk
        self._cursor = _Cursor(previous)
        self._directories = previous.head.directories
        self._todo: list[tuple[bytes, int, bytes]] = []
        self._paths = tuple(paths)
        self._beneath = Beneath(start)
        self._start = start
        self._streams = streams or Streams()
        # What leads to the paths is looked at every time: it is not watched.
        self._add(_ROW, b"")
        for path in self._paths:
            above = path
            while above:
                above = above.rpartition(b"/")[0]
                self._add(_CHILDREN, above)
        self._above = {path for _, kind, path in self._todo if kind == _CHILDREN}
        for path in self._streams.parents():
            self._add(_CHILDREN, path)
        for path in dirty.directories:
            if self._is_inside(path):
                self._add(_ROW, path)
                self._add(_CHILDREN, path)
        for path in dirty.subtrees:
            if self._is_inside(path):
                self._add(_ROW, path)
                self._add(_ALL, path)

    def __iter__(self) -> Iterator[Whole | Kept | Mixed]:
        cursor = self._cursor
        passed = b""
        if b"" in self._paths:
            self._walk.found_paths += 1
        try:
            while self._todo:
                low, kind, path = heappop(self._todo)
                if low < passed:
                    continue
                yield from cursor.before(low)
                passed = _end_of(low, kind)
                if kind == _ROW:
                    yield from self._look([self._row(path)])
                    self._gone(path.rpartition(b"/")[0], passed)
                elif kind == _CHILDREN:
                    yield from self._look(self._children(path))
                    self._gone(path, passed)
                else:
                    if kind == _ALL:
                        yield from self._look(self._walk.below(path, self._beneath), deep=True)
                    cursor.within(passed, passed)
            yield from cursor.before(None)
        finally:
            self._beneath.close()
        self._walk.directories = self._directories - cursor.dropped_directories

    def _children(self, path: bytes) -> Iterator[Listing]:
        if self._is_inside(path):
            return self._walk.children(path, self._beneath)
        there = self._walk.children(path, self._beneath) if path in self._above else ()
        return self._streams.children(path, there, self._start)

    def _add(self, kind: int, path: bytes) -> None:
        if kind == _ROW:
            low = _row_key(path)
        elif kind == _CHILDREN:
            low = children_prefix(path) + b"\x01"
        else:
            low = below_prefix(path)
        heappush(self._todo, (low, kind, path))

    def _is_inside(self, path: bytes) -> bool:
        return any(is_below(path, wanted) for wanted in self._paths) and self._walk.takes(path)

    def _row(self, path: bytes) -> Listing | None:
        """A directory's own row."""
        parent, _, name = path.rpartition(b"/")
        try:
            fd = self._beneath.open(parent)
        except OSError as error:
            self._walk.lost(path, error)
            return None
        try:
            stat = os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd)
        except OSError as error:
            os.close(fd)
            self._walk.lost(path, error)
            return None
        return Listing(parent, children_prefix(parent), fd, [(name, stat, line_of(name, stat))])

    def _look(self, listings: Iterable[Listing | None], *, deep: bool = False) -> Iterator[Mixed]:
        """Rows with what was known of them; directories that are others now are noted."""
        for listing in listings:
            if listing is None:
                continue
            parent, prefix, fd, rows = listing
            try:
                was = self._cursor.within(prefix + rows[-1][0] + b"\0", prefix)
                self._compare(parent, rows, was, deep=deep)
                known: Known = {(parent, name): old for name, old in was.items()}
                yield Mixed([Segment(parent, fd, rows)], known)
            finally:
                os.close(fd)

    def _compare(
        self, parent: bytes, rows: list[Row], was: dict[bytes, tuple[Entry, bytes]], *, deep: bool
    ) -> None:
        left = dict(was)
        for name, stat, line in rows:
            old = left.get(name)
            if stat.st_mode >> 12 != _DIRECTORY:
                continue
            left.pop(name, None)
            path = join(parent, name)
            self._directories += bool(name)
            if path in self._paths and name:
                self._walk.found_paths += 1
            is_made = path in self._streams.folders
            if deep or not name or is_made or self._walk.leads_to_paths(path):
                continue
            if old is None or identity_of(old[1]) != identity_of(line[-MARK_BYTES:]):
                self._add(_ALL, path)
        if not deep:
            self._add_gone(parent, left)

    def _gone(self, parent: bytes, high: bytes) -> None:
        self._add_gone(parent, self._cursor.within(high, children_prefix(parent)))

    def _add_gone(self, parent: bytes, left: Mapping[bytes, tuple[Entry, bytes]]) -> None:
        """Directories that are none any more: nothing is below them."""
        for name, (entry, _) in left.items():
            if entry.mode >> 12 == _DIRECTORY and name:
                self._add(_GONE, join(parent, name))


def linked_directories(previous: Previous) -> Iterator[bytes]:
    """Directories with files of several names, which may change by a name elsewhere."""
    assert previous.head is not None
    left = [previous.head.top]
    while left:
        block = left.pop()
        if not block.linked:
            continue
        if block.node().level:
            left.extend(previous.below(block))
        else:
            for parent, entry, _ in previous.entries(block):
                if entry.link_group is not None:
                    yield parent


def _key(found: Found) -> bytes:
    return children_prefix(found[0]) + found[1].name


def _row_key(path: bytes) -> bytes:
    parent, _, name = path.rpartition(b"/")
    return children_prefix(parent) + name


def _end_of(low: bytes, kind: int) -> bytes:
    """The first key behind what is looked at."""
    if kind == _ROW:
        return low + b"\0"
    if kind == _CHILDREN:
        low = low[:-1]
    return low[:-1] + b"\x01"
