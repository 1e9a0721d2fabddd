"""Lay chunks into packs, read a pack's index, and find the chunks of a damaged pack.

A pack is frames, then an index, then a trailer. A frame is a chunk's id and its bytes,
so that every chunk can be checked where it lies, even when the index is gone. The
trailer carries the hash of the index: the end of a pack alone is enough to trust it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, NewType

from blake3 import blake3

from protocol.errors import Code, InvalidError, SteadError
from protocol.vault.chunk import (
    ID_BYTES,
    MAGIC,
    Buffer,
    ChunkDamagedError,
    ChunkId,
    Kind,
    chunk_id,
    inspect,
)

PackId = NewType("PackId", str)

PACK_BYTES: Final = 32 * 1024 * 1024
MAX_PACK_BYTES: Final = 64 * 1024 * 1024
PACK_MAGIC: Final = b"STEADPK\x01"

_RECORD = struct.Struct("<32sBII")
_TRAILER = struct.Struct("<32sII8s")
RECORD_BYTES: Final = _RECORD.size
TRAILER_BYTES: Final = _TRAILER.size
# A hostile pack of nothing but chunk magics must not cost more than this many readings.
_SCAN_FACTOR: Final = 8


class PackDamagedError(SteadError):
    """A pack's index is missing, damaged or does not fit the pack."""

    code = Code.PACK_DAMAGED


class Placed(NamedTuple):
    """Where a chunk's stored bytes lie inside a pack."""

    id: ChunkId
    kind: Kind
    offset: int
    length: int


class Damaged(NamedTuple):
    """A range of a pack in which no chunk can be recognised."""

    offset: int
    length: int


class PackBuilder:
    """Collects chunks of one kind; holds references to them, copies nothing."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.size = 0
        self._parts: list[Buffer] = []
        self._records: list[bytes] = []
        self._hash = blake3()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, identity: ChunkId, stored: Buffer) -> int:
        """Append a chunk and return the offset of its bytes.

        The caller has compared `identity` with the bytes. Raises `InvalidError` for a
        chunk of the other kind and when the pack would grow beyond 64 MiB.
        """
        if len(identity) != ID_BYTES or stored[5] != self.kind:
            raise InvalidError("tree chunks and data chunks never share a pack")
        offset, length = self.size + ID_BYTES, len(stored)
        if self.finished_bytes + ID_BYTES + length + RECORD_BYTES > MAX_PACK_BYTES:
            raise InvalidError("a pack cannot grow beyond 64 MiB; begin another one")
        self._parts += (identity, stored)
        self._hash.update(identity)
        self._hash.update(stored)
        self._records.append(_RECORD.pack(identity, self.kind, offset, length))
        self.size = offset + length
        return offset

    @property
    def finished_bytes(self) -> int:
        """The size of the pack if it were finished now."""
        return self.size + len(self._records) * RECORD_BYTES + TRAILER_BYTES

    def finish(self) -> tuple[PackId, list[Buffer]]:
        """The pack's name, and its content as buffers to be written one after another."""
        index = b"".join(self._records)
        trailer = _TRAILER.pack(
            blake3(index).digest(), len(self._records), len(index) + TRAILER_BYTES, PACK_MAGIC
        )
        whole = self._hash.copy()
        whole.update(index)
        whole.update(trailer)
        return PackId(whole.hexdigest()), [*self._parts, index, trailer]


def pack_id(pack: Buffer) -> PackId:
    """The name of a pack: the BLAKE3 hash of its whole content, in hex."""
    return PackId(blake3(pack).hexdigest())


def footer_bytes(tail: Buffer) -> int:
    """How many bytes at the end of a pack hold index and trailer.

    `tail` is at least the last `TRAILER_BYTES` bytes. Raises `PackDamagedError`.
    """
    if len(tail) < TRAILER_BYTES:
        raise PackDamagedError("a pack is too short to have an index; run `stead vault check`")
    _, count, length, magic = _TRAILER.unpack_from(tail, len(tail) - TRAILER_BYTES)
    if magic != PACK_MAGIC:
        raise PackDamagedError("a pack does not end like one; run `stead vault check`")
    if length != count * RECORD_BYTES + TRAILER_BYTES or length > MAX_PACK_BYTES:
        raise PackDamagedError("a pack's trailer contradicts itself; run `stead vault check`")
    return int(length)


def read_footer(tail: Buffer, total_bytes: int) -> list[Placed]:
    """The index of a pack of `total_bytes`, from its last `footer_bytes(tail)` bytes or more.

    Checks the index against its hash and every place against the pack. Raises
    `PackDamagedError`.
    """
    length = footer_bytes(tail)
    if length > len(tail) or length > total_bytes or total_bytes > MAX_PACK_BYTES:
        raise PackDamagedError("a pack is shorter than its index says; run `stead vault check`")
    start = len(tail) - length
    index = bytes(tail[start : len(tail) - TRAILER_BYTES])
    digest = bytes(tail[len(tail) - TRAILER_BYTES :][:ID_BYTES])
    if blake3(index).digest() != digest:
        raise PackDamagedError("a pack's index does not fit its hash; run `stead vault check`")
    placed: list[Placed] = []
    end = 0
    for identity, kind, offset, size in _RECORD.iter_unpack(index):
        if kind > Kind.TREE or offset != end + ID_BYTES or size == 0:
            raise PackDamagedError("a pack's index names impossible places")
        end = offset + size
        placed.append(Placed(ChunkId(identity), Kind(kind), offset, size))
    if end != total_bytes - length:
        raise PackDamagedError("a pack's index does not cover the pack")
    return placed


def read_index(pack: Buffer) -> list[Placed]:
    """The index of a whole pack; see `read_footer`."""
    return read_footer(pack, len(pack))


def scan(pack: Buffer) -> Iterator[Placed | Damaged]:
    """Find every intact chunk of a pack, with or without its index, in stored order.

    A chunk counts when its bytes hash to the id in front of them. What lies between
    is reported as damaged; so is a footer that cannot be trusted.
    """
    try:
        limit = len(pack) - len(read_index(pack)) * RECORD_BYTES - TRAILER_BYTES
    except PackDamagedError:
        limit = len(pack)
    content = pack if isinstance(pack, bytes | bytearray) else bytes(pack)
    view = memoryview(content)[:limit]
    budget = _SCAN_FACTOR * limit
    done = 0
    start = content.find(MAGIC, ID_BYTES, limit)
    while start >= 0 and budget > 0:
        found = _chunk_at(view, start)
        if found is not None:
            budget -= found.length
            if chunk_id(view[start : start + found.length]) != found.id:
                found = None
        if found is None:
            start = content.find(MAGIC, start + 1, limit)
            continue
        if start - ID_BYTES > done:
            yield Damaged(done, start - ID_BYTES - done)
        yield found
        done = found.offset + found.length
        start = content.find(MAGIC, done + ID_BYTES, limit)
    if done < limit:
        yield Damaged(done, limit - done)


def _chunk_at(view: memoryview, start: int) -> Placed | None:
    try:
        header = inspect(view[start:])
    except ChunkDamagedError:
        return None
    identity = ChunkId(bytes(view[start - ID_BYTES : start]))
    return Placed(identity, header.kind, start, header.stored_bytes)
