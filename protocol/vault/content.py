"""Keep the lists of extents of big files out of the leaves, and read them back.

A file of many chunks gets a tree of lists: where a list ends depends on the chunk that
ends it, so an edit in the middle of a terabyte rewrites a few lists and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from protocol.errors import InvalidError
from protocol.vault.chunk import Kind, Reference, Sealer
from protocol.vault.entry import MAX_DEPTH, Extent, content_fits
from protocol.vault.node import encode_extents

Put = Callable[[Reference, bytes], None]

INLINE_EXTENTS: Final = 256
LIST_EXTENTS: Final = 1024
_MEAN_MASK: Final = 255


class ExtentWriter:
    """Collects the extents of one file; memory is bounded by `LIST_EXTENTS` a level."""

    def __init__(self, sealer: Sealer, put: Put) -> None:
        self._sealer = sealer
        self._put = put
        self._levels: list[list[Extent]] = [[]]
        self.size = 0

    def add(self, extent: Extent) -> None:
        """Append what comes next in the file."""
        self.size += extent.length
        self._append(0, extent)

    def _append(self, depth: int, extent: Extent) -> None:
        if depth > MAX_DEPTH:
            raise InvalidError("a file is too large for this format")
        if depth == len(self._levels):
            self._levels.append([])
        pending = self._levels[depth]
        pending.append(extent)
        reference = extent.reference
        if len(pending) >= LIST_EXTENTS or (
            len(pending) > INLINE_EXTENTS
            and reference is not None
            and reference.id[0] & _MEAN_MASK == 0
        ):
            self._seal(depth)

    def _seal(self, depth: int) -> None:
        pending = self._levels[depth]
        plain, children = encode_extents(depth, pending)
        reference, stored = self._sealer.seal(Kind.TREE, plain, children)
        self._put(reference, stored)
        length = sum(extent.length for extent in pending)
        pending.clear()
        self._append(depth + 1, Extent(reference, 0, length))

    def finish(self) -> tuple[tuple[Extent, ...], int]:
        """The `extents` and the `depth` for the entry."""
        depth = 0
        while depth < len(self._levels) - 1:
            if self._levels[depth]:
                self._seal(depth)
            depth += 1
        return tuple(self._levels[depth]), depth


def write_extents(
    sealer: Sealer, put: Put, extents: Sequence[Extent]
) -> tuple[tuple[Extent, ...], int]:
    """The `extents` and the `depth` for an entry whose extents are all known."""
    if len(extents) <= INLINE_EXTENTS:
        return tuple(extents), 0
    writer = ExtentWriter(sealer, put)
    for extent in extents:
        writer.add(extent)
    return writer.finish()


def flat_extents(
    extents: Sequence[Extent],
    depth: int,
    read_list: Callable[[Reference], tuple[int, tuple[Extent, ...]]],
) -> Iterator[Extent]:
    """Every extent of a file in order, lists resolved one after another.

    `read_list` gives depth and extents of a list. Raises `InvalidError` when a list has
    another depth or another length than was noted.
    """
    if depth == 0:
        yield from extents
        return
    for extent in extents:
        if extent.reference is None:
            raise InvalidError("a list of extents is missing")
        below, listed = read_list(extent.reference)
        if below != depth - 1 or not content_fits(listed, below, extent.length):
            raise InvalidError("a list of extents is not the one that was noted")
        yield from flat_extents(listed, below, read_list)
