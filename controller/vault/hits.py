"""Which restore points need chunks that were lost.

Only the clear headers of tree chunks are read, so it takes no key. A tree chunk follows
its children, mostly in packs of a lower number too, so one pass over the tree packs is
nearly always enough; passes are made until one finds nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Event

import msgspec
from sqlalchemy import Connection, select

from controller.db.database import Database
from controller.db.schema import packs, points
from controller.store.store import ObjectStore
from controller.vault.keys import pack_key
from protocol.errors import SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Kind, inspect
from protocol.vault.pack import read_index


class StoppedError(Exception):
    """The controller is stopping; the next one to start does this again."""


def hit_points(
    store: ObjectStore,
    db: Database,
    tenant: str,
    lost: Iterable[ChunkId],
    stopping: Event | None = None,
) -> Mapping[str, list[str]]:
    """The restore points whose trees name one of the chunks, by machine. Blocks.

    A tree that cannot be read is left out: its pack gets a scrub of its own. Raises
    `StoppedError` once `stopping` is set: of a large vault this reads for minutes.
    """
    hit = _above(store, db, tenant, set(lost), stopping or Event())

    def live(connection: Connection) -> list[tuple[str, str, bytes]]:
        rows = connection.execute(
            select(points.c.machine_id, points.c.id, points.c.root_id)
            .where(points.c.tenant_id == tenant)
            .order_by(points.c.received_at)
        )
        return [(row[0], row[1], row[2]) for row in rows]

    found: dict[str, list[str]] = {}
    for machine, point, root in db.read_now(live):
        if root in hit:
            found.setdefault(machine, []).append(point)
    return found


def encode_hit(hit: Mapping[str, list[str]]) -> str:
    """The restore points by machine, as the row of a damage keeps them."""
    return msgspec.json.encode(hit, order="deterministic").decode()


def decode_hit(text: str | None) -> dict[str, list[str]]:
    """The restore points by machine that a row of a damage names; none before it is known."""
    return {} if text is None else msgspec.json.decode(text, type=dict[str, list[str]])


def _above(
    store: ObjectStore, db: Database, tenant: str, lost: set[ChunkId], stopping: Event
) -> set[ChunkId]:
    """The chunks and every tree chunk above them, up to the roots."""
    hit = set(lost)
    names = db.read_now(
        lambda c: c.scalars(
            select(packs.c.id)
            .where(packs.c.tenant_id == tenant, packs.c.kind == Kind.TREE.name.lower())
            .order_by(packs.c.number)
        ).all()
    )
    before = -1
    while len(hit) > before:
        before = len(hit)
        for name in names:
            if stopping.is_set():
                raise StoppedError
            _add_parents(store, pack_key(tenant, name), hit)
    return hit


def _add_parents(store: ObjectStore, key: str, hit: set[ChunkId]) -> None:
    try:
        content = store.get(key)
        placed = read_index(content)
    except SteadError:
        return
    view = memoryview(content)
    for chunk in placed:
        if chunk.id in hit:
            continue
        try:
            header = inspect(view[chunk.offset : chunk.offset + chunk.length])
        except ChunkDamagedError:
            continue
        if not hit.isdisjoint(header.children):
            hit.add(chunk.id)
