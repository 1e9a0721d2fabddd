"""The rows of a collection: which generation is under way, what it condemned, what is due.

Functions of a connection. A tombstone says which generation laid it and is in force
once that generation is condemned, which is one row: all of them at once, or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, delete, func, insert, select, update

from controller.audit import log as audit_log
from controller.db.schema import (
    chunks,
    doomed_packs,
    forgotten_points,
    generations,
    packs,
    points,
    tombstones,
)
from controller.db.upsert import upsert
from controller.vault import index
from protocol.vault.chunk import ChunkId


class Phase(StrEnum):
    """How far a generation came."""

    MARKING = "marking"
    CONDEMNED = "condemned"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Generation:
    """A collection that is under way. Packs beyond `last_pack` are none of its business."""

    tenant: str
    number: int
    last_pack: int


def abandon(connection: Connection, tenant: str, limit: int) -> bool:
    """Undo a generation that was cut short, `limit` tombstones at a time; whether more are left."""
    is_open = generations.c.state.not_in((Phase.CONDEMNED.value, Phase.ABANDONED.value))
    cut_short = select(generations.c.number).where(generations.c.tenant_id == tenant, is_open)
    rows = connection.scalars(
        select(tombstones.c.id)
        .where(tombstones.c.tenant_id == tenant, tombstones.c.generation.in_(cut_short))
        .limit(limit)
    ).all()
    index.lift(connection, tenant, [ChunkId(row) for row in rows])
    if len(rows) == limit:
        return True
    connection.execute(
        update(generations)
        .where(generations.c.tenant_id == tenant, is_open)
        .values(state=Phase.ABANDONED.value)
    )
    return False


def begin(connection: Connection, tenant: str, at: datetime) -> Generation:
    """Open the next generation."""
    highest = connection.scalar(
        select(func.max(generations.c.number)).where(generations.c.tenant_id == tenant)
    )
    number = int(highest or 0) + 1
    connection.execute(
        insert(generations),
        {"tenant_id": tenant, "number": number, "state": Phase.MARKING.value, "began_at": at},
    )
    return Generation(tenant, number, newest_pack(connection))


def newest_pack(connection: Connection) -> int:
    """The highest number that a pack has."""
    return int(connection.scalar(select(func.max(packs.c.number))) or 0)


def roots(connection: Connection, tenant: str) -> dict[str, ChunkId]:
    """The root of every restore point, forgotten ones included for as long as their row is."""
    return {
        row.id: ChunkId(row.root_id)
        for table in (points, forgotten_points)
        for row in connection.execute(
            select(table.c.id, table.c.root_id).where(table.c.tenant_id == tenant)
        )
    }


def lay(connection: Connection, generation: Generation, ids: Sequence[ChunkId]) -> None:
    """Lay tombstones that are not in force yet. What is dead already stays as it is."""
    connection.execute(
        upsert(connection, tombstones).on_conflict_do_nothing(),
        [
            {"tenant_id": generation.tenant, "id": one, "generation": generation.number}
            for one in ids
        ],
    )


def spare(connection: Connection, generation: Generation, ids: Iterable[ChunkId]) -> None:
    """Take back tombstones of this generation; those in force are none of them."""
    for batch in index.batches(ids):
        connection.execute(
            delete(tombstones).where(
                tombstones.c.tenant_id == generation.tenant,
                tombstones.c.id.in_(batch),
                tombstones.c.generation == generation.number,
            )
        )


def spare_between(
    connection: Connection, generation: Generation, edges: Iterable[tuple[bytes, bytes]]
) -> None:
    """`spare` for all ids between two."""
    for low, high in edges:
        connection.execute(
            delete(tombstones).where(
                tombstones.c.tenant_id == generation.tenant,
                tombstones.c.id.between(low, high),
                tombstones.c.generation == generation.number,
            )
        )


def condemn(
    connection: Connection, generation: Generation, followed: Iterable[str], at: datetime
) -> dict[str, ChunkId]:
    """Put the generation's tombstones in force, unless there are roots that were not followed.

    Those are returned, and nothing is condemned; empty when all is done.
    """
    now = roots(connection, generation.tenant)
    unseen = {point: now[point] for point in now.keys() - set(followed)}
    if unseen:
        return unseen
    count = connection.scalar(
        select(func.count()).where(
            tombstones.c.tenant_id == generation.tenant,
            tombstones.c.generation == generation.number,
        )
    )
    connection.execute(
        update(generations)
        .where(
            generations.c.tenant_id == generation.tenant,
            generations.c.number == generation.number,
        )
        .values(state=Phase.CONDEMNED.value, condemned_at=at)
    )
    if count:
        body = {"generation": generation.number, "chunks": count}
        audit_log.append(connection, generation.tenant, "controller", "chunks_condemned", body, at)
    return {}


def due_generation(connection: Connection, tenant: str, condemned_before: datetime) -> int:
    """What was condemned in this generation or earlier may be dropped; 0 when nothing may."""
    found = connection.scalar(
        select(func.max(generations.c.number)).where(
            generations.c.tenant_id == tenant,
            generations.c.state == Phase.CONDEMNED.value,
            generations.c.condemned_at <= condemned_before,
        )
    )
    return int(found or 0)


def due_in(connection: Connection, tenant: str, pack: int, due: int) -> tuple[list[ChunkId], int]:
    """The chunks of a pack that may be dropped, and how many others it has."""
    all_of_it = connection.scalars(select(chunks.c.id).where(chunks.c.pack_number == pack)).all()
    dead: list[ChunkId] = []
    for batch in index.batches(ChunkId(one) for one in all_of_it):
        found = connection.scalars(
            select(tombstones.c.id).where(
                tombstones.c.tenant_id == tenant,
                tombstones.c.id.in_(batch),
                tombstones.c.generation <= due,
            )
        )
        dead += map(ChunkId, found)
    return dead, len(all_of_it) - len(dead)


def doom(connection: Connection, tenant: str, pack: str, due_at: datetime) -> None:
    """Note that a pack's object is to be deleted, unless it is entered again before."""
    connection.execute(
        upsert(connection, doomed_packs).on_conflict_do_nothing(),
        {"tenant_id": tenant, "id": pack, "due_at": due_at},
    )


def remove_pack(
    connection: Connection, tenant: str, number: int, dead: Sequence[ChunkId], at: datetime
) -> None:
    """Take away the rows of a pack and of its dead chunks; its object is doomed."""
    pack = connection.scalar(select(packs.c.id).where(packs.c.number == number))
    for batch in index.batches(dead):
        connection.execute(
            delete(chunks).where(chunks.c.tenant_id == tenant, chunks.c.id.in_(batch))
        )
    index.lift(connection, tenant, dead)
    connection.execute(delete(packs).where(packs.c.number == number))
    if pack is not None:
        doom(connection, tenant, pack, at)
