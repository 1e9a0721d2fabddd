"""Encode and decode the nodes of a tree above its leaves, and lists of extents.

A node is a MessagePack array that begins with its type and level. The ids of what it
references are not in it: they are the children in the chunk's clear header, in the
same order, so the two can never disagree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from protocol.errors import InvalidError
from protocol.vault.chunk import (
    FINGERPRINT_BYTES,
    ID_BYTES,
    MAX_PLAIN_BYTES,
    REFERENCE_BYTES,
    ChunkId,
    Reference,
    decode_reference,
    encode_reference,
)
from protocol.vault.entry import MAX_DEPTH, MAX_EXTENTS, MAX_INTEGER, Extent

INNER: Final = 1
EXTENTS: Final = 2
MAX_LEVEL: Final = 15

_TAIL = struct.Struct("<32sI16s")
_ROOT = struct.Struct("<BQQQ")
_HOLE = -1

Natural = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Index = Annotated[int, Meta(ge=_HOLE, le=MAX_INTEGER)]


class Root(NamedTuple):
    """A node and what lies below it: how to reach it, its level, and its totals.

    `entries` counts everything, `files` what has content, `bytes` the sizes of those.
    """

    reference: Reference
    level: int
    entries: int
    files: int
    bytes: int


ROOT_BYTES: Final = REFERENCE_BYTES + _ROOT.size


def encode_root(root: Root) -> bytes:
    """109 bytes: reference, level, totals."""
    return encode_reference(root.reference) + _ROOT.pack(*root[1:])


def decode_root(data: bytes) -> Root:
    """Read what `encode_root` wrote; `InvalidError` otherwise."""
    if len(data) != ROOT_BYTES:
        raise InvalidError(f"a root is {ROOT_BYTES} bytes, this is {len(data)}")
    level, entries, files, size = _ROOT.unpack(data[REFERENCE_BYTES:])
    if level > MAX_LEVEL:
        raise InvalidError(f"a tree cannot have {level} levels")
    return Root(decode_reference(data[:REFERENCE_BYTES]), level, entries, files, size)


class _Inner(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    type: int
    level: int
    tails: bytes
    items: list[tuple[bytes, Natural, Natural, Natural]]


class _Extents(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    type: int
    level: int
    tails: bytes
    extents: list[Index]


_ENCODER = msgspec.msgpack.Encoder()
_INNER = msgspec.msgpack.Decoder(_Inner)
_EXTENTS = msgspec.msgpack.Decoder(_Extents)


class ReferenceTable:
    """Numbers references in the order of their first use."""

    def __init__(self) -> None:
        self.ids: dict[ChunkId, int] = {}
        self.tails = bytearray()

    def number(self, reference: Reference) -> int:
        """The number of a reference, new or known."""
        number = self.ids.get(reference[0])
        if number is None:
            identity, key, length, fingerprint = reference
            if (
                len(identity) != ID_BYTES
                or len(key) != ID_BYTES
                or len(fingerprint) != FINGERPRINT_BYTES
                or not 0 <= length <= MAX_PLAIN_BYTES
            ):
                raise InvalidError("a reference holds parts of the wrong length")
            number = self.ids[identity] = len(self.ids)
            self.tails += _TAIL.pack(key, length, fingerprint)
        return number

    def forget(self, count: int) -> None:
        """Keep the first `count` references only."""
        for identity in list(self.ids)[count:]:
            del self.ids[identity]
        del self.tails[count * _TAIL.size :]

    def flatten(self, extents: Iterable[Extent]) -> list[int]:
        """Extents as (number or -1, offset, length), end to end."""
        flat: list[int] = []
        for extent in extents:
            reference = extent.reference
            number = _HOLE if reference is None else self.number(reference)
            flat += (number, extent.offset, extent.length)
        return flat


class Item(NamedTuple):
    """A child of an inner node: the last key below it, and the node."""

    last_key: bytes
    node: Root


def encode_inner(level: int, items: Sequence[Item]) -> tuple[bytes, list[ChunkId]]:
    """The plain inner node of this level (1 and up) and the children for its header."""
    tails = b"".join(_TAIL.pack(*item.node.reference[1:]) for item in items)
    rows = [(item.last_key, item.node.entries, item.node.files, item.node.bytes) for item in items]
    plain = _ENCODER.encode((INNER, level, tails, rows))
    return plain, [item.node.reference.id for item in items]


def encode_extents(depth: int, extents: Sequence[Extent]) -> tuple[bytes, list[ChunkId]]:
    """The plain list of extents of this depth and the children for its header."""
    table = ReferenceTable()
    flat = table.flatten(extents)
    plain = _ENCODER.encode((EXTENTS, depth, bytes(table.tails), flat))
    return plain, list(table.ids)


def decode_inner(plain: bytes, children: Sequence[ChunkId]) -> tuple[int, list[Item]]:
    """The level and the items of an inner node; `InvalidError` when it is not a sound one."""
    node = _decode(_INNER, plain)
    if node.type != INNER or not 1 <= node.level <= MAX_LEVEL:
        raise InvalidError("this node is not an inner node of a possible level")
    if not node.items or len(node.items) != len(children):
        raise InvalidError("an inner node names other children than its chunk")
    items: list[Item] = []
    last = b""
    for reference, (key, *totals) in zip(
        read_references(node.tails, children), node.items, strict=True
    ):
        if key <= last or not totals[0]:
            raise InvalidError("an inner node is not sorted, or names an empty node")
        items.append(Item(key, Root(reference, node.level - 1, *totals)))
        last = key
    return node.level, items


def decode_extents(plain: bytes, children: Sequence[ChunkId]) -> tuple[int, tuple[Extent, ...]]:
    """The depth and the extents of a list; `InvalidError` when it is not a sound one."""
    node = _decode(_EXTENTS, plain)
    if node.type != EXTENTS or not 0 <= node.level < MAX_DEPTH:
        raise InvalidError("this node is not a list of extents of a possible depth")
    return node.level, unflatten(node.extents, read_references(node.tails, children))


def unflatten(flat: Sequence[int], references: Sequence[Reference]) -> tuple[Extent, ...]:
    """Undo `ReferenceTable.flatten`; numbers beyond the table raise `InvalidError`."""
    if len(flat) % 3 or len(flat) > 3 * MAX_EXTENTS:
        raise InvalidError("a list of extents has an impossible length")
    extents: list[Extent] = []
    for place in range(0, len(flat), 3):
        number, offset, length = flat[place : place + 3]
        if number >= len(references):
            raise InvalidError("an extent names a reference that is not there")
        extents.append(Extent(references[number] if number >= 0 else None, offset, length))
    return tuple(extents)


def read_references(tails: bytes, children: Sequence[ChunkId]) -> list[Reference]:
    """Join the ids of a chunk's header with the rest of the references inside."""
    if len(tails) != len(children) * _TAIL.size or len(set(children)) != len(children):
        raise InvalidError("a node names other children than its chunk")
    references = [
        Reference(identity, *tail)
        for identity, tail in zip(children, _TAIL.iter_unpack(tails), strict=True)
    ]
    if any(reference.length > MAX_PLAIN_BYTES for reference in references):
        raise InvalidError("a node names a chunk that cannot exist")
    return references


_Node = TypeVar("_Node")


def _decode(decoder: msgspec.msgpack.Decoder[_Node], plain: bytes) -> _Node:
    try:
        return decoder.decode(plain)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"a node of a tree cannot be read: {error}") from error
