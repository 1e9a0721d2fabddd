"""Seal content into chunks and open them again; see `docs/vault-format.md`.

The header is clear and covered by both the key and the id, so whoever stores a chunk
can check it without any key, and whoever opens it knows that a holder of the tenant's
convergence secret made exactly these bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple, NewType, TypeAlias

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.errors import Code, InvalidError, SteadError
from protocol.vault.keys import VaultSecret

ChunkId = NewType("ChunkId", bytes)
Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC: Final = b"StCk"
VERSION: Final = 1
ID_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 16
TAG_BYTES: Final = 16
HEADER_BYTES: Final = 16
MAX_PLAIN_BYTES: Final = 16 * 1024 * 1024
MAX_CHILDREN: Final = 32 * 1024
MAX_STORED_BYTES: Final = HEADER_BYTES + MAX_CHILDREN * ID_BYTES + MAX_PLAIN_BYTES + TAG_BYTES

_HEADER = struct.Struct("<4sBBBBII")
_REFERENCE = struct.Struct("<32s32sI16s")
_NONCE = bytes(12)
_ZSTD = 1


class Kind(IntEnum):
    """What a chunk holds: content of files, or a node of a tree."""

    DATA = 0
    TREE = 1


class ChunkDamagedError(SteadError):
    """A chunk is not what its id, its reference or its format says it is."""

    code = Code.CHUNK_DAMAGED

    def __init__(self, chunk: bytes | None, reason: str) -> None:
        name = chunk.hex() if chunk is not None else "without a known id"
        super().__init__(f"chunk {name} is damaged: {reason}; run `stead vault check`")
        self.chunk = chunk
        self.reason = reason


class Reference(NamedTuple):
    """The capability to read one chunk.

    `id` and `key` are 32 bytes, `length` is that of the plain content, `fingerprint`
    is 16 bytes of the keyed hash of the plain content.
    """

    id: ChunkId
    key: bytes
    length: int
    fingerprint: bytes


class Header(NamedTuple):
    """What anybody can see of a chunk. `children` is empty for a data chunk."""

    kind: Kind
    compressed: bool
    children: tuple[ChunkId, ...]
    header_bytes: int
    stored_bytes: int


REFERENCE_BYTES: Final = _REFERENCE.size


def encode_reference(reference: Reference) -> bytes:
    """84 bytes: id, key, plain length (little endian), fingerprint."""
    return _REFERENCE.pack(*reference)


def decode_reference(data: Buffer) -> Reference:
    """Read what `encode_reference` wrote; `InvalidError` otherwise."""
    if len(data) != REFERENCE_BYTES:
        raise InvalidError(f"a reference is {REFERENCE_BYTES} bytes, this is {len(data)}")
    identity, key, length, fingerprint = _REFERENCE.unpack(data)
    if length > MAX_PLAIN_BYTES:
        raise InvalidError(f"a chunk of {length} bytes cannot exist")
    return Reference(ChunkId(identity), key, length, fingerprint)


def chunk_id(stored: Buffer) -> ChunkId:
    """The id of a stored chunk: the BLAKE3 hash of all of its bytes."""
    return ChunkId(blake3(stored).digest())


class Sealer:
    """Turns plain content into stored chunks. Holds a compressor: one per thread."""

    def __init__(self, secret: VaultSecret, level: int = 1) -> None:
        self._convergence = secret.convergence
        self._fingerprint_key = secret.fingerprint_key
        self._compress = zstandard.ZstdCompressor(level=level).compress

    def fingerprint(self, plain: Buffer) -> bytes:
        """16 bytes by which a machine of the tenant recognises this content."""
        return blake3(plain, key=self._fingerprint_key).digest(FINGERPRINT_BYTES)

    def seal(
        self,
        kind: Kind,
        plain: Buffer,
        children: Sequence[bytes] = (),
        fingerprint: bytes | None = None,
    ) -> tuple[Reference, bytes]:
        """The reference to a chunk and the bytes to store.

        `fingerprint` saves hashing the content again when it is known already.
        Raises `InvalidError` when the content or the list of children is too long.
        """
        length = len(plain)
        if length > MAX_PLAIN_BYTES or len(children) > MAX_CHILDREN:
            raise InvalidError(f"a chunk cannot hold {length} bytes and {len(children)} children")
        if children and kind is not Kind.TREE:
            raise InvalidError("only a tree chunk has children")
        packed: Buffer = self._compress(plain)
        flags = _ZSTD
        if len(packed) >= length:
            packed, flags = plain, 0
        header = _HEADER.pack(
            MAGIC, VERSION, kind, flags, 0, len(children), len(packed) + TAG_BYTES
        )
        if children:
            header = b"".join((header, *children))
        key = blake3(header, key=self._convergence).update(packed).digest()
        body = AESGCM(key).encrypt(_NONCE, packed, header)
        # Of a chunk of megabytes two copies are enough.
        del packed
        stored = header + body
        del body
        if fingerprint is None:
            fingerprint = blake3(plain, key=self._fingerprint_key).digest(FINGERPRINT_BYTES)
        return Reference(ChunkId(blake3(stored).digest()), key, length, fingerprint), stored


def inspect(stored: Buffer) -> Header:
    """Read the clear header of a stored chunk and check every length, without any key.

    Bytes after the chunk are allowed, so that a pack can be walked. Raises
    `ChunkDamagedError` when this cannot be a chunk.
    """
    if len(stored) < HEADER_BYTES + TAG_BYTES:
        raise ChunkDamagedError(None, "it is too short")
    magic, version, kind, flags, zero, count, body = _HEADER.unpack_from(stored)
    if magic != MAGIC:
        raise ChunkDamagedError(None, "it does not begin like a chunk")
    if version != VERSION:
        raise ChunkDamagedError(None, f"its format version {version} is unknown")
    if kind > Kind.TREE or flags > _ZSTD or zero != 0:
        raise ChunkDamagedError(None, "its header holds values that are never written")
    if count > (MAX_CHILDREN if kind == Kind.TREE else 0):
        raise ChunkDamagedError(None, f"it claims {count} children")
    if not TAG_BYTES <= body <= MAX_PLAIN_BYTES + TAG_BYTES:
        raise ChunkDamagedError(None, f"it claims a body of {body} bytes")
    start = HEADER_BYTES + count * ID_BYTES
    if start + body > len(stored):
        raise ChunkDamagedError(None, "it ends before its body does")
    listed = bytes(stored[HEADER_BYTES:start])
    children = tuple(
        ChunkId(listed[place : place + ID_BYTES]) for place in range(0, len(listed), ID_BYTES)
    )
    return Header(Kind(kind), flags == _ZSTD, children, start, start + body)


class Opener:
    """Turns stored chunks into plain content. Holds a decompressor: one per thread."""

    def __init__(self, secret: VaultSecret) -> None:
        self._convergence = secret.convergence
        self._zstd = zstandard.ZstdDecompressor(max_window_size=MAX_PLAIN_BYTES)

    def open(self, stored: Buffer, reference: Reference, kind: Kind = Kind.DATA) -> bytes:
        """The plain content of a chunk that is what `reference` says.

        Raises `ChunkDamagedError` when the bytes are not those of the reference, were
        not made by a holder of the secret, or unpack to anything but its length.
        """
        return self._open(stored, reference, kind)[0]

    def open_tree(self, stored: Buffer, reference: Reference) -> tuple[bytes, tuple[ChunkId, ...]]:
        """The plain content of a tree chunk, and the children that its header names."""
        plain, header = self._open(stored, reference, Kind.TREE)
        return plain, header.children

    def _open(self, stored: Buffer, reference: Reference, kind: Kind) -> tuple[bytes, Header]:
        identity = reference.id
        if blake3(stored).digest() != identity:
            raise ChunkDamagedError(identity, "its bytes do not hash to its id")
        try:
            header = inspect(stored)
        except ChunkDamagedError as damage:
            raise ChunkDamagedError(identity, damage.reason) from None
        if header.stored_bytes != len(stored):
            raise ChunkDamagedError(identity, "bytes follow its end")
        if header.kind is not kind:
            raise ChunkDamagedError(identity, f"it is a {header.kind.name.lower()} chunk")
        view = memoryview(stored)
        clear = bytes(view[: header.header_bytes])
        try:
            packed = AESGCM(reference.key).decrypt(_NONCE, view[header.header_bytes :], clear)
        except (InvalidTag, ValueError):
            raise ChunkDamagedError(identity, "the key of its reference does not fit") from None
        made = blake3(clear, key=self._convergence).update(packed).digest()
        if made != reference.key:
            raise ChunkDamagedError(identity, "nobody of this tenant made it")
        plain = self._unpack(identity, packed, reference.length) if header.compressed else packed
        if len(plain) != reference.length:
            raise ChunkDamagedError(identity, "its content has another length than was noted")
        return plain, header

    def _unpack(self, identity: ChunkId, packed: bytes, length: int) -> bytes:
        """Decompress; the frame has to announce the length, so no bomb is ever unfolded."""
        try:
            announced = zstandard.get_frame_parameters(packed).content_size
            if announced != length or length > MAX_PLAIN_BYTES:
                raise ChunkDamagedError(identity, "its content has another length than was noted")
            return self._zstd.decompress(packed, max_output_size=length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ChunkDamagedError(identity, f"it cannot be decompressed: {error}") from None
