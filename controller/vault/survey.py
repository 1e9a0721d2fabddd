"""What the object store holds of the vault, read without the database."""

from __future__ import annotations

from collections.abc import Iterator

from controller.store.store import ObjectStore
from controller.vault.keys import PackKey, PointKey, pack_key, parse_key
from protocol.vault.pack import (
    Damaged,
    PackDamagedError,
    Placed,
    footer_bytes,
    read_footer,
    scan,
)

_TAIL_BYTES = 64 * 1024


def objects(store: ObjectStore) -> Iterator[tuple[PackKey | PointKey, int]]:
    """Every pack and restore point with its size, sorted by key; blocks."""
    for key, size in store.list():
        named = parse_key(key)
        if named is not None:
            yield named, size


def contents(store: ObjectStore, pack: PackKey, size: int) -> tuple[list[Placed], str | None]:
    """The chunks of a pack, and what is wrong with its index or None.

    Reads the end of the pack alone; a pack whose index is damaged is read whole, and the
    chunks are found by their own hashes. Blocks.
    """
    key = pack_key(pack.tenant, pack.pack)
    tail = store.get(key, max(0, size - _TAIL_BYTES))
    try:
        length = footer_bytes(tail)
        if length > len(tail):
            tail = store.get(key, max(0, size - length))
        return read_footer(tail, size), None
    except PackDamagedError as damage:
        return intact(store.get(key)), str(damage)


def intact(content: bytes) -> list[Placed]:
    """The chunks of a damaged pack whose bytes hash to the ids in front of them."""
    return [found for found in scan(content) if not isinstance(found, Damaged)]
