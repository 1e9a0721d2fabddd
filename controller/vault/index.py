"""Where each chunk of a tenant lies, and whether anybody may still rely on it.

A cache of the packs' own indexes. A chunk under a tombstone that is in force can be
read for as long as its pack is there, but is not held: see `controller.vault.collect.collector`.

Functions of a connection, for `Database.write` and `Database.read`; `rebuild` makes
the same rows from the object store alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, select

from controller.db.schema import chunks, doomed_packs, generations, packs, tombstones
from controller.db.upsert import upsert
from protocol.vault.chunk import ChunkId, Kind
from protocol.vault.pack import PackId, Placed

_BATCH = 1000
_CONDEMNED = "condemned"
# A part of the statement that never changes is compiled once.
_IN_FORCE = (
    select(func.coalesce(func.max(generations.c.number), 0))
    .where(generations.c.tenant_id == bindparam("tenant"), generations.c.state == _CONDEMNED)
    .scalar_subquery()
)
_IS_DEAD = exists().where(
    tombstones.c.tenant_id == bindparam("tenant"),
    tombstones.c.id == chunks.c.id,
    tombstones.c.generation <= _IN_FORCE,
)
_STANDING = select(chunks.c.id, chunks.c.kind, _IS_DEAD.label("is_dead")).where(
    chunks.c.tenant_id == bindparam("tenant"),
    chunks.c.id.in_(bindparam("ids", expanding=True)),
)
_HELD = select(chunks.c.id).where(
    chunks.c.tenant_id == bindparam("tenant"),
    chunks.c.id.in_(bindparam("ids", expanding=True)),
    ~_IS_DEAD,
)
_PRESENT = select(chunks.c.id).where(
    chunks.c.tenant_id == bindparam("tenant"),
    chunks.c.id.in_(bindparam("ids", expanding=True)),
)
PAGE = (
    select(
        chunks.c.id,
        chunks.c.pack_number,
        chunks.c.length,
        chunks.c.kind,
        _IS_DEAD.label("is_dead"),
        exists()
        .where(
            tombstones.c.tenant_id == bindparam("tenant"),
            tombstones.c.id == chunks.c.id,
            tombstones.c.generation <= bindparam("due"),
        )
        .label("is_due"),
    )
    .where(chunks.c.tenant_id == bindparam("tenant"), chunks.c.id > bindparam("after"))
    .order_by(chunks.c.id)
    .limit(bindparam("limit"))
)
"""A piece of a tenant's index in the order of ids, for the collector."""
_ANY_TOMBSTONE = (
    select(tombstones.c.generation).where(tombstones.c.tenant_id == bindparam("tenant")).limit(1)
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


class Standing(NamedTuple):
    """Chunks that may be relied on, and dead ones that `revive` can bring back.

    A dead tree chunk is in neither: what it names may be gone, so it is sent again.
    """

    held: set[ChunkId]
    revivable: set[ChunkId]


def held(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> set[ChunkId]:
    """Those of the chunks that the tenant's packs hold and no tombstone covers."""
    return _found(connection, _HELD, tenant, ids)


def present(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> set[ChunkId]:
    """Those of the chunks that lie in the tenant's packs, dead ones included."""
    return _found(connection, _PRESENT, tenant, ids)


def standing(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> Standing:
    """Which chunks are held, and which could be again."""
    found = Standing(set(), set())
    for batch in batches(ids):
        for row in connection.execute(_STANDING, {"tenant": tenant, "ids": batch}):
            if not row.is_dead:
                found.held.add(row.id)
            elif row.kind == Kind.DATA:
                found.revivable.add(row.id)
    return found


def revive(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> set[ChunkId]:
    """Lift the tombstones of data chunks; those of `ids` that are held from now on."""
    alive: set[ChunkId] = set()
    for batch in batches(ids):
        found = standing(connection, tenant, batch)
        lift(connection, tenant, found.revivable)
        alive |= found.held | found.revivable
    return alive


def lift(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> None:
    """Take tombstones away, in force or not."""
    for batch in batches(ids):
        connection.execute(
            delete(tombstones).where(tombstones.c.tenant_id == tenant, tombstones.c.id.in_(batch))
        )


def lay_in_force(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> None:
    """Put chunks under tombstones that are in force at once, as condemned last."""
    newest = connection.scalar(select(_IN_FORCE), {"tenant": tenant})
    found = [{"tenant_id": tenant, "id": one, "generation": newest} for one in ids]
    if found:
        connection.execute(upsert(connection, tombstones).on_conflict_do_nothing(), found)


def has_tombstones(connection: Connection, tenant: str) -> bool:
    """Whether the tenant has any tombstone, in force or not."""
    return connection.scalar(_ANY_TOMBSTONE, {"tenant": tenant}) is not None


def _found(
    connection: Connection, statement: Select[Any], tenant: str, ids: Iterable[ChunkId]
) -> set[ChunkId]:
    found: set[ChunkId] = set()
    for batch in batches(ids):
        found.update(connection.execute(statement, {"tenant": tenant, "ids": batch}).scalars())
    return found


def entered(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> set[ChunkId]:
    """Those that have a row, whether or not there is the pack that it names."""
    found: set[ChunkId] = set()
    for batch in batches(ids):
        asked = select(chunks.c.id).where(chunks.c.tenant_id == tenant, chunks.c.id.in_(batch))
        found.update(ChunkId(one) for one in connection.scalars(asked))
    return found


def locate(connection: Connection, tenant: str, ids: Iterable[ChunkId]) -> dict[ChunkId, Place]:
    """Where the chunks lie, dead ones included; those in no pack are left out."""
    found: dict[ChunkId, Place] = {}
    for batch in batches(ids):
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
    *,
    revive_dead: bool = True,
) -> None:
    """Enter a pack that is durable, with its chunks. A chunk held elsewhere stays there.

    Chunks that were sent again live again, here: whoever sent them relies on them, and
    sent what they name. With `revive_dead` false tombstones stay as they are, which is
    right for packs that were only found again.
    """
    connection.execute(
        delete(doomed_packs).where(doomed_packs.c.tenant_id == tenant, doomed_packs.c.id == pack)
    )
    if revive_dead:
        _make_way(connection, tenant, [chunk.id for chunk in placed])
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


def _make_way(connection: Connection, tenant: str, ids: Sequence[ChunkId]) -> None:
    """Forget the places of dead chunks, and all tombstones, of what is being entered."""
    if not has_tombstones(connection, tenant):
        return
    dead = present(connection, tenant, ids) - held(connection, tenant, ids)
    for batch in batches(dead):
        connection.execute(
            delete(chunks).where(chunks.c.tenant_id == tenant, chunks.c.id.in_(batch))
        )
    lift(connection, tenant, ids)


def batches(ids: Iterable[ChunkId]) -> Iterator[list[ChunkId]]:
    """Without repetition and in order: neighbours in the index are read together."""
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]
