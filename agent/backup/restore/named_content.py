"""Get the content of named streams out of the vault, or compare it with what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from agent.backup.restore.fetch import Fetcher, Plain
from agent.metadata.named import Fill, Listing
from agent.metadata.system import SYSTEM
from protocol.errors import SteadError
from protocol.vault.chunk import Buffer, ChunkId, Reference, Sealer
from protocol.vault.entry import Entry, Extent, Stream
from protocol.vault.reader import TreeReader

_AT_ONCE_BYTES: Final = 4 * 1024 * 1024
_AT_ONCE: Final = 1024
_PIECE: Final = 1024 * 1024


class NamedContent:
    """`plain` are chunks that are at hand; others are fetched, a few at once."""

    def __init__(self, reader: TreeReader, fetcher: Fetcher, sealer: Sealer) -> None:
        self._reader = reader
        self._fetcher = fetcher
        self._sealer = sealer
        self.plain: Plain = {}
        self._fetched: Plain = {}

    def of(self, stream: Stream) -> Iterator[Buffer | int]:
        """Piece by piece; a number is a hole. Raises what is wrong with a chunk or a list."""
        batch: list[Extent] = []
        size = 0
        for extent in self._reader.extents(stream.extents, stream.depth):
            batch.append(extent)
            size += extent.reference.length if extent.reference is not None else 0
            if size >= _AT_ONCE_BYTES or len(batch) >= _AT_ONCE:
                yield from self._pieces(batch)
                batch, size = [], 0
        yield from self._pieces(batch)

    def is_held(self, directory: int, name: bytes, stream: Stream) -> bool:
        """Whether a stream of that name and length is there with this content.

        A chunk that it has to itself is known without fetching it. Raises `OSError`, and
        what is wrong with a chunk or a list.
        """
        with SYSTEM.read_stream(directory, name, stream.name) as fill:
            for extent in self._reader.extents(stream.extents, stream.depth):
                reference = extent.reference
                if reference is None:
                    if not _is_empty(fill, extent.length):
                        return False
                    continue
                found = _read(fill, extent.length)
                if extent.length == reference.length:
                    if self._sealer.fingerprint(found) != reference.fingerprint:
                        return False
                elif list(self._pieces([extent])) != [found]:
                    return False
        return True

    def _pieces(self, batch: Sequence[Extent]) -> Iterator[Buffer | int]:
        at_hand = self.plain | self._fetched
        wanted: dict[ChunkId, Reference] = {
            one.reference.id: one.reference
            for one in batch
            if one.reference is not None and one.reference.id not in at_hand
        }
        if wanted:
            fresh = [one for key, one in wanted.items() if not self._fetcher.has(key)]
            # What was fetched last is kept: streams that follow lie in the same chunk.
            opening = self._fetcher.open(wanted, self._fetcher.start(fresh))
            self._fetched = self._fetcher.plain(wanted, opening)
            at_hand |= self._fetched
        for extent in batch:
            if extent.reference is None:
                yield extent.length
                continue
            content = at_hand[extent.reference.id]
            if isinstance(content, SteadError):
                raise content
            yield memoryview(content)[extent.offset : extent.offset + extent.length]


def is_listed(entry: Entry, listing: Listing | None) -> bool:
    """Whether what is there has just the streams of an entry, by name and length.

    Those that have no place there do not count.
    """
    if listing is None:
        return True
    wanted = [(one.name, one.size) for one in entry.streams if SYSTEM.takes_stream(one.name)]
    return wanted == list(listing.streams)


def _read(fill: Fill, length: int) -> bytes:
    room = bytearray(length)
    return bytes(room[: fill(memoryview(room))])


def _is_empty(fill: Fill, length: int) -> bool:
    while length:
        found = _read(fill, min(length, _PIECE))
        if not found or any(found):
            return False
        length -= len(found)
    return True
