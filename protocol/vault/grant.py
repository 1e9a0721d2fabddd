"""The capability inside a restore order: what a machine needs to read a part of a tree.

The operator's side cuts it out of a tree (`TreeReader.subtree`) and seals it to the
machine that shall restore; the signed order carries it.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from protocol.errors import InvalidError
from protocol.vault.chunk import ID_BYTES, ChunkId
from protocol.vault.keys import KEY_BYTES
from protocol.vault.node import Root, decode_root, encode_root
from protocol.vault.reader import Piece, Span
from protocol.vault.seal import PrivateKey, PublicKey, binding, open_sealed, seal_to

MAX_GRANT_BYTES: Final = 3 * 1024 * 1024


class Grant(msgspec.Struct, frozen=True):
    """Spans to read, and the convergence secret they were made with.

    `convergence` is empty when that is the one the machine holds already; a restore point
    made in the scope of another machine needs it.
    """

    spans: tuple[Span, ...]
    convergence: bytes = b""


class _Span(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    nodes: list[bytes | tuple[bytes, bytes]]
    low: bytes
    high: bytes | None


class _Grant(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    spans: list[_Span]
    convergence: bytes


_decode = msgspec.msgpack.Decoder(_Grant).decode


def encode_grant(grant: Grant) -> bytes:
    """MessagePack; `InvalidError` beyond 3 MiB, which an order cannot carry."""
    spans = [
        _Span(
            [
                encode_root(node) if isinstance(node, Root) else (node.plain, _joined(node))
                for node in span.nodes
            ],
            span.low,
            span.high,
        )
        for span in grant.spans
    ]
    data = msgspec.msgpack.encode(_Grant(1, spans, grant.convergence))
    if len(data) > MAX_GRANT_BYTES:
        raise InvalidError("this part of a tree does not fit an order; choose a folder above it")
    return data


def _joined(piece: Piece) -> bytes:
    return b"".join(piece.children)


def decode_grant(data: bytes) -> Grant:
    """Read what `encode_grant` wrote; `InvalidError` otherwise."""
    try:
        grant = _decode(data)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"a grant cannot be read: {error}") from error
    if len(grant.convergence) not in (0, KEY_BYTES):
        raise InvalidError("a grant carries a secret of the wrong length")
    spans = [Span(tuple(map(_node, span.nodes)), span.low, span.high) for span in grant.spans]
    return Grant(tuple(spans), grant.convergence)


def _node(encoded: bytes | tuple[bytes, bytes]) -> Root | Piece:
    if isinstance(encoded, bytes):
        return decode_root(encoded)
    plain, ids = encoded
    if len(ids) % ID_BYTES:
        raise InvalidError("a grant names chunks by ids of the wrong length")
    children = (ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES))
    return Piece(plain, tuple(map(ChunkId, children)))


def seal_grant(
    grant: Grant, recipient: PublicKey | bytes, *, tenant: str, machine: str, point: str
) -> bytes:
    """Seal a grant to the machine that shall restore, for one restore point only."""
    return seal_to(recipient, encode_grant(grant), binding("grant", tenant, machine, point))


def open_grant(
    recipient: PrivateKey, sealed: bytes, *, tenant: str, machine: str, point: str
) -> Grant:
    """Undo `seal_grant`; `SealedError` when it was meant for another machine or restore point."""
    return decode_grant(open_sealed(recipient, sealed, binding("grant", tenant, machine, point)))
