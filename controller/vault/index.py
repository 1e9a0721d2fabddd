"""Where each chunk of a tenant lies. A cache of the packs' own indexes.

Functions of a connection, for `Database.write` and `Database.read`; `rebuild` makes
the same rows from the object store alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from controller.db.schema import chunks, packs
from controller.db.upsert import upsert
from protocol.vault.chunk import ChunkId, Kind
from protocol.vault.pack import PackId, Placed

_BATCH = 1000
# A part of the statement that never changes is compiled once.
_HELD = select(chunks.c.id).where(
    chunks.c.tenant_id == bindparam("tenant"),
    chunks.c.id.in_(bindparam("ids", expanding=True)),
)
_PLACES = (
    select(chunks.c.id, packs.c.id, chunks.c.offset, chunks.c.length, chunks.c.kind)
    .join(packs, packs.c.number == chunks.c.pack_number)
    .where(
        chunks.c.tenant_id == bindparam("tenant"),
        chunks.c.id.in_(bindparam("ids", expanding=True)),
    )
)


class Place(NamedTuple):
    """Where a chunk's stored bytes lie. `offset` and `length` in bytes of the pack."""

    pack: PackId
    offset: int
    length: int
    kind: Kind


def held(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> set[ChunkId]:
    """Those of the chunks that the tenant's packs hold."""
    found: set[ChunkId] = set()
    for batch in _batches(ids):
        rows = connection.execute(_HELD, {"tenant": tenant, "ids": batch})
        found.update(rows.scalars())
    return found


def locate(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> dict[ChunkId, Place]:
    """Where the chunks lie; those that are not held are left out."""
    found: dict[ChunkId, Place] = {}
    for batch in _batches(ids):
        for row in connection.execute(_PLACES, {"tenant": tenant, "ids": batch}):
            found[row[0]] = Place(PackId(row[1]), row[2], row[3], Kind(row[4]))
    return found


def record_pack(
    connection: Connection,
    tenant: str,
    pack: PackId,
    kind: Kind,
    length: int,
    placed: Sequence[Placed],
    at: datetime,
) -> None:
    """Enter a pack that is durable, with its chunks. A chunk held elsewhere stays there."""
    connection.execute(
        upsert(connection, packs).on_conflict_do_nothing(),
        {
            "tenant_id": tenant,
            "id": pack,
            "kind": kind.name.lower(),
            "length": length,
            "created_at": at,
        },
    )
    number = connection.scalar(
        select(packs.c.number).where(packs.c.tenant_id == tenant, packs.c.id == pack)
    )
    rows = [
        {
            "tenant_id": tenant,
            "id": chunk.id,
            "pack_number": number,
            "offset": chunk.offset,
            "length": chunk.length,
            "kind": chunk.kind.value,
        }
        for chunk in placed
    ]
    if rows:
        connection.execute(upsert(connection, chunks).on_conflict_do_nothing(), rows)


def _batches(ids: Iterable[ChunkId]) -> Iterator[list[ChunkId]]:
    """Without repetition and in order: neighbours in the index are read together."""
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]
