"""Read any part of a file of a restore point, through a bounded memory of opened chunks.

Small files share chunks with their neighbours and big ones are read in pieces, so a chunk
that was opened is kept until others have filled the room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from protocol.errors import SteadError
from protocol.vault.cached import CachedReader
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Opener, Reference
from protocol.vault.entry import Entry, Extent, content_fits
from protocol.vault.reader import ChunkMissingError, Fetch

CACHE_BYTES = 64 * 1024 * 1024
AHEAD_BYTES = 8 * 1024 * 1024
PIECE_BYTES = 1024 * 1024


class Chunks:
    """Opened chunks of one secret; at most `limit_bytes` of them, and the newest one."""

    def __init__(self, opener: Opener, fetch: Fetch, *, limit_bytes: int = CACHE_BYTES) -> None:
        self._opener = opener
        self._fetch = fetch
        self._limit = limit_bytes
        self._kept: OrderedDict[ChunkId, bytes] = OrderedDict()
        self._size = 0
        self.fetched_bytes = 0

    def plain(self, wanted: Reference, ahead: Sequence[Reference] = ()) -> bytes:
        """The content of a chunk; those in `ahead` are fetched in the same breath if any is.

        Raises `ChunkDamagedError`, `ChunkMissingError`, and what `fetch` raises.
        """
        found = self._kept.get(wanted.id)
        if found is not None:
            self._kept.move_to_end(wanted.id)
            return found
        following = {one.id: one for one in ahead if one.id not in self._kept}
        following.pop(wanted.id, None)
        try:
            return self._ask([wanted, *following.values()])
        except SteadError:
            # What comes ahead of its time is no reason to fail.
            if not following:
                raise
            return self._ask([wanted])

    def _ask(self, asked: Sequence[Reference]) -> bytes:
        """Fetch and open chunks; the content of the first."""
        answers = iter(self._fetch([one.id for one in asked]))
        contents = []
        for reference in asked:
            stored = next(answers, None)
            if stored is None:
                raise ChunkMissingError(reference.id)
            contents.append(self._opener.open(stored, reference))
            self.fetched_bytes += len(stored)
        # The first one last: it is the one that is used.
        for reference, content in reversed(list(zip(asked, contents, strict=True))):
            self._keep(reference.id, content)
        return contents[0]

    def _keep(self, identity: ChunkId, content: bytes) -> None:
        self._size += len(content) - len(self._kept.pop(identity, b""))
        self._kept[identity] = content
        while self._size > self._limit and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])


def read_at(
    reader: CachedReader,
    chunks: Chunks,
    entry: Entry,
    offset: int,
    size: int,
    *,
    ahead: bool = False,
) -> bytes:
    """At most `size` bytes of a file from `offset` on; holes are zeros.

    With `ahead`, the chunks that follow are fetched along with one that is missing.
    """
    if entry.inline is not None:
        return entry.inline[offset : offset + size]
    return b"".join(_read(reader, chunks, entry.extents, entry.depth, offset, size, ahead))


def pieces_of(reader: CachedReader, chunks: Chunks, entry: Entry) -> Iterator[bytes]:
    """A file's content from its beginning to its end, each piece verified."""
    for offset in range(0, entry.size, PIECE_BYTES):
        yield read_at(reader, chunks, entry, offset, PIECE_BYTES, ahead=True)


def _read(
    reader: CachedReader,
    chunks: Chunks,
    extents: Sequence[Extent],
    depth: int,
    offset: int,
    size: int,
    ahead: bool,
) -> Iterator[bytes]:
    begins = 0
    for place, extent in enumerate(extents):
        ends = begins + extent.length
        if begins >= offset + size:
            return
        if ends > offset:
            low, high = max(0, offset - begins), min(extent.length, offset + size - begins)
            if extent.reference is None:
                yield bytes(high - low)
            elif depth:
                found, below = reader.extent_list(extent.reference)
                if found != depth - 1 or not content_fits(below, found, extent.length):
                    raise ChunkDamagedError(extent.reference.id, "it is not the noted list")
                yield from _read(reader, chunks, below, depth - 1, low, high - low, ahead)
            else:
                following = _following(extents, place) if ahead else ()
                plain = chunks.plain(extent.reference, following)
                piece = plain[extent.offset + low : extent.offset + high]
                if len(piece) != high - low:
                    raise ChunkDamagedError(extent.reference.id, "it is shorter than was noted")
                yield piece
        begins = ends


def _following(extents: Sequence[Extent], place: int) -> list[Reference]:
    found: list[Reference] = []
    room = AHEAD_BYTES
    for extent in extents[place + 1 : place + 65]:
        if extent.reference is not None:
            room -= extent.reference.length
            if room < 0:
                break
            found.append(extent.reference)
    return found
