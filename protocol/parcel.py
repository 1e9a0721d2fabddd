"""Seal a file's content for its way through the controller, piece by piece. Pure.

A parcel is pieces of content of `PIECE_BYTES` each, but for the last of them, and then a
trailer with the size and the hash of all. Each is sealed with AES-256-GCM-SIV (RFC 8452)
under one key, bound to the parcel, its sender, its number and whether it is the trailer. So
whoever carries a parcel can neither read a piece, nor change, move or leave one out. The
numbers are the nonces: a file that changes while it is sent again under the same key shows
no more than which pieces stayed the same.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from msgspec import Meta

from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import MachineId, ParcelId, TenantId, make_id
from protocol.vault.keys import KEY_BYTES, VaultSecret
from protocol.vault.seal import PrivateKey, binding, open_sealed, seal_to

PIECE_BYTES: Final = 2 * 1024 * 1024
SEALED_PIECE_BYTES: Final = PIECE_BYTES + 16
MAX_PIECES: Final = 1 << 20
AT_ONCE: Final = 4
"""So many pieces are sent, or fetched, at a time: each waits for the line and for the disk."""

OPERATOR: Final = "operator"
"""The sender of what an operator sends."""

_CONTENT_KEY: Final = "stead parcel content key v1"
_PARCEL_ID: Final = "stead parcel id v1"


class ParcelDamagedError(SteadError):
    """A parcel is not as its sender sealed it."""

    code = Code.BAD_SIGNATURE


class Trailer(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What comes after the content: its bytes, their BLAKE3, and how the file was kept."""

    size: Annotated[int, Meta(ge=0)]
    content_hash: Annotated[bytes, Meta(min_length=32, max_length=32)]
    mode: Annotated[int, Meta(ge=0, le=0o7777)] = 0
    mtime_ns: int = 0
    owner: str = ""
    group: str = ""


def pieces_in(size: int) -> int:
    """How many pieces of content so many bytes make.

    >>> pieces_in(0), pieces_in(1), pieces_in(PIECE_BYTES + 1)
    (0, 1, 2)
    """
    return -(-size // PIECE_BYTES)


def sealed_bytes(size: int) -> int:
    """At most so many bytes is a parcel with `size` bytes of content."""
    return size + 16 * pieces_in(size) + 4096


def key_of_content(secret: VaultSecret, size: int, content_hash: bytes) -> bytes:
    """The key that this content is sent to machines with: the same when it is sent again."""
    base = blake3(secret.convergence, derive_key_context=_CONTENT_KEY).digest()
    return blake3(size.to_bytes(8, "big") + content_hash, key=base).digest()


def parcel_of_key(key: bytes) -> ParcelId:
    """The id of the parcel that this key is for; it says nothing of the key."""
    digest = blake3(key, derive_key_context=_PARCEL_ID).digest()
    at = int.from_bytes(digest[:6], "big")
    return ParcelId(make_id("pc", at_ms=at, random=digest[6:16]))


def seal_piece(
    key: bytes, parcel: ParcelId, sender: str, index: int, plain: bytes, *, is_trailer: bool = False
) -> bytes:
    """Seal one piece; INVALID for one that is too large or beyond the last number."""
    if len(plain) > PIECE_BYTES or not 0 <= index < MAX_PIECES:
        raise InvalidError(f"piece {index} of {len(plain)} bytes is beyond what a parcel holds")
    aad = _about(parcel, sender, index, is_trailer=is_trailer)
    return AESGCMSIV(key).encrypt(_nonce(index, is_trailer=is_trailer), plain, aad)


def open_piece(
    key: bytes,
    parcel: ParcelId,
    sender: str,
    index: int,
    sealed: bytes,
    *,
    is_trailer: bool = False,
) -> bytes:
    """Undo `seal_piece`; `ParcelDamagedError` unless it is that very piece."""
    aad = _about(parcel, sender, index, is_trailer=is_trailer)
    try:
        # Shorter than a tag is refused by what opens it.
        return AESGCMSIV(key).decrypt(_nonce(index, is_trailer=is_trailer), sealed, aad)
    except InvalidTag:
        raise ParcelDamagedError(
            f"piece {index} of the file is not as its sender sealed it; nothing was put in "
            "place. Order it again, and look at who has the controller"
        ) from None


def seal_trailer(key: bytes, parcel: ParcelId, sender: str, trailer: Trailer) -> bytes:
    """Seal the trailer, which has the number after the last piece of content."""
    plain = msgspec.msgpack.encode(trailer)
    return seal_piece(key, parcel, sender, pieces_in(trailer.size), plain, is_trailer=True)


def open_trailer(key: bytes, parcel: ParcelId, sender: str, index: int, sealed: bytes) -> Trailer:
    """Undo `seal_trailer`; `ParcelDamagedError` when it belongs to other content."""
    plain = open_piece(key, parcel, sender, index, sealed, is_trailer=True)
    try:
        trailer = msgspec.msgpack.decode(plain, type=Trailer)
    except (ValueError, RecursionError) as error:
        raise ParcelDamagedError(f"the end of the file cannot be read: {error}") from error
    if pieces_in(trailer.size) != index:
        raise ParcelDamagedError("the file is longer or shorter than its sender says")
    return trailer


def seal_key(
    key: bytes, recipient: bytes, *, tenant: TenantId, machine: MachineId, parcel: ParcelId
) -> bytes:
    """A parcel's key that only this machine can read."""
    return seal_to(recipient, key, binding("parcel key", tenant, machine, parcel))


def open_key(
    recipient: PrivateKey,
    sealed: bytes,
    *,
    tenant: TenantId,
    machine: MachineId,
    parcel: ParcelId,
) -> bytes:
    """Undo `seal_key`; `SealedError` when it was sealed to another, INVALID for no key."""
    key = open_sealed(recipient, sealed, binding("parcel key", tenant, machine, parcel))
    if len(key) != KEY_BYTES:
        raise InvalidError("what was sealed is not a key")
    return key


def _nonce(index: int, *, is_trailer: bool) -> bytes:
    return bytes([is_trailer]) + index.to_bytes(11, "big")


def _about(parcel: ParcelId, sender: str, index: int, *, is_trailer: bool) -> bytes:
    return binding("parcel piece", parcel, sender, str(index), str(int(is_trailer)))
