from __future__ import annotations

import pytest
from blake3 import blake3

from protocol.errors import InvalidError
from protocol.vault.chunk import ID_BYTES, ChunkId, Kind, Sealer
from protocol.vault.keys import TenantKey
from protocol.vault.pack import (
    _RECORD,
    _TRAILER,
    MAX_PACK_BYTES,
    PACK_MAGIC,
    TRAILER_BYTES,
    Damaged,
    PackBuilder,
    PackDamagedError,
    footer_bytes,
    pack_id,
    read_footer,
    read_index,
    scan,
)

SEALER = Sealer(TenantKey(bytes(32)).secret)


def filled(count: int = 5) -> tuple[PackBuilder, list[tuple[ChunkId, bytes]]]:
    builder, chunks = PackBuilder(Kind.DATA), []
    for number in range(count):
        reference, stored = SEALER.seal(Kind.DATA, bytes([number]) * (number * 100 + 50))
        assert builder.add(reference.id, stored) == builder.size - len(stored)
        chunks.append((reference.id, stored))
    return builder, chunks


def test_a_pack_gives_back_its_chunks_and_is_named_by_its_content() -> None:
    builder, chunks = filled()
    name, parts = builder.finish()
    pack = b"".join(parts)
    assert len(pack) == builder.finished_bytes
    assert name == pack_id(pack)
    index = read_index(pack)
    assert [(one.id, pack[one.offset : one.offset + one.length]) for one in index] == chunks
    assert list(scan(pack)) == index


def test_the_end_of_a_pack_is_enough_to_know_what_is_in_it() -> None:
    pack = b"".join(filled()[0].finish()[1])
    needed = footer_bytes(pack[-TRAILER_BYTES:])
    assert read_footer(pack[-needed:], len(pack)) == read_index(pack)
    with pytest.raises(PackDamagedError):
        read_footer(pack[-needed + 1 :], len(pack))
    with pytest.raises(PackDamagedError):
        read_footer(pack[-needed:], len(pack) - 1)


def test_every_flipped_byte_of_a_footer_is_found() -> None:
    pack = b"".join(filled(3)[0].finish()[1])
    for place in range(len(pack) - footer_bytes(pack), len(pack)):
        damaged = bytearray(pack)
        damaged[place] ^= 1
        with pytest.raises(PackDamagedError):
            read_index(damaged)


def test_a_pack_without_its_footer_still_gives_every_chunk() -> None:
    builder, chunks = filled()
    pack = b"".join(builder.finish()[1])
    found = list(scan(pack[: builder.size]))
    assert [one.id for one in found if not isinstance(one, Damaged)] == [one for one, _ in chunks]
    assert not any(isinstance(one, Damaged) for one in found)


def test_an_empty_pack_is_a_pack() -> None:
    pack = b"".join(PackBuilder(Kind.TREE).finish()[1])
    assert read_index(pack) == []
    assert list(scan(pack)) == []


def test_tree_and_data_chunks_never_share_a_pack() -> None:
    reference, stored = SEALER.seal(Kind.TREE, b"")
    with pytest.raises(InvalidError):
        PackBuilder(Kind.DATA).add(reference.id, stored)


def test_a_pack_has_a_greatest_size() -> None:
    builder = PackBuilder(Kind.DATA)
    stored = b"StCk\x01\x00" + bytes(16 << 20)
    for _ in range(3):
        builder.add(ChunkId(bytes(32)), stored)
    with pytest.raises(InvalidError):
        builder.add(ChunkId(bytes(32)), stored)
    assert builder.finished_bytes < MAX_PACK_BYTES


def test_a_pack_of_nothing_but_beginnings_is_scanned_in_bounded_time() -> None:
    header = b"StCk\x01\x00\x00\x00" + bytes(4) + (1 << 20).to_bytes(4, "little")
    found = list(scan(header * (1 << 17)))
    assert found == [Damaged(0, 2 << 20)]


def forged(content: bytes, *records: tuple[bytes, int, int, int]) -> bytes:
    """A pack whose index is whole and says whatever it likes."""
    index = b"".join(_RECORD.pack(*record) for record in records)
    length = len(index) + TRAILER_BYTES
    trailer = _TRAILER.pack(blake3(index).digest(), len(records), length, PACK_MAGIC)
    return content + index + trailer


def test_an_index_that_fits_its_hash_is_held_against_the_pack_all_the_same() -> None:
    reference, stored = SEALER.seal(Kind.DATA, b"some content")
    size = len(stored)
    content = reference.id + stored
    good = (reference.id, Kind.DATA, ID_BYTES, size)
    assert [one.id for one in read_index(forged(content, good))] == [reference.id]
    nothing = (reference.id, Kind.DATA, 2 * ID_BYTES + size, 0)
    for wrong in (
        forged(content + b"more", good),
        forged(content + bytes(ID_BYTES), good, nothing),
        forged(content, good, good),
        forged(content, (*good[:3], size - 1)),
        forged(content, (*good[:3], size + 1)),
        forged(content, (reference.id, Kind.DATA, ID_BYTES + 1, size - 1)),
        forged(content, (reference.id, max(Kind) + 1, ID_BYTES, size)),
        forged(content),
    ):
        with pytest.raises(PackDamagedError):
            read_index(wrong)
