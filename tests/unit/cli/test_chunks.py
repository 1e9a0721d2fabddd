"""Reading parts of files through a bounded memory of chunks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from controller.cli.points.chunks import Chunks, pieces_of, read_at
from protocol.vault.cached import CachedReader
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Kind, Opener, Sealer
from protocol.vault.content import ExtentWriter
from protocol.vault.entry import Entry, Extent, Owner
from tests.property.vault_trees import SECRET, Held


def big_file(held: Held, count: int, hole_every: int = 5) -> tuple[Entry, bytes]:
    """A file of many small chunks with holes between, deep enough to have lists of extents."""
    sealer, chance = Sealer(SECRET), random.Random(3)
    writer = ExtentWriter(sealer, held.put)
    content = bytearray()
    for number in range(count):
        if number % hole_every == 0:
            writer.add(Extent(None, 0, 700))
            content += bytes(700)
            continue
        plain = chance.randbytes(100)
        reference, stored = sealer.seal(Kind.DATA, plain)
        held.put(reference, stored)
        writer.add(Extent(reference, 10, 80))
        content += plain[10:90]
    extents, depth = writer.finish()
    return Entry(b"f", 0o100644, Owner(0, 0), 1, len(content), extents, depth=depth), bytes(content)


@pytest.mark.parametrize("count", [3, 3000])
def test_any_part_of_a_file_is_what_lies_there(count: int) -> None:
    held = Held()
    entry, content = big_file(held, count)
    assert bool(entry.depth) == (count > 256)
    reader, chunks = CachedReader(Opener(SECRET), held.fetch), Chunks(Opener(SECRET), held.fetch)
    chance = random.Random(4)
    for _ in range(200):
        offset, size = chance.randrange(len(content) + 10), chance.randrange(1, 5000)
        ahead = chance.random() < 0.5
        found = read_at(reader, chunks, entry, offset, size, ahead=ahead)
        assert found == content[offset : offset + size]
    assert b"".join(pieces_of(reader, chunks, entry)) == content


def test_memory_is_bounded_and_what_is_kept_is_not_fetched_again() -> None:
    held = Held()
    entry, _ = big_file(held, 200)
    reader = CachedReader(Opener(SECRET), held.fetch)
    chunks = Chunks(Opener(SECRET), held.fetch, limit_bytes=1000)
    for offset in range(0, entry.size, 40):
        read_at(reader, chunks, entry, offset, 40, ahead=True)
        assert chunks._size <= 1000
        assert chunks._size == sum(map(len, chunks._kept.values()))
    held.fetched.clear()
    read_at(reader, chunks, entry, entry.size - 40, 40)
    assert held.fetched == []


def test_a_damaged_chunk_ahead_does_not_spoil_the_one_that_is_read() -> None:
    held = Held()
    entry, content = big_file(held, 4)
    reader = CachedReader(Opener(SECRET), held.fetch)
    references = [one.reference for one in entry.extents if one.reference is not None]
    spoilt = references[1].id

    def fetch(ids: Sequence[ChunkId]) -> Iterator[bytes]:
        return (b"nonsense" if one == spoilt else held.chunks[one] for one in ids)

    chunks = Chunks(Opener(SECRET), fetch)
    assert read_at(reader, chunks, entry, 700, 80, ahead=True) == content[700:780]
    with pytest.raises(ChunkDamagedError):
        read_at(reader, chunks, entry, 780, 80, ahead=True)
