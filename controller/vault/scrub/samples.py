"""Walk a few random ways from a restore point's root down to its data: is everything there?

Taken after every commit and every collection. The clear headers say what a tree chunk
names, so it takes no key: each chunk on the way is read and compared with its id, and all
that it names has to be held. A whole check costs reading everything; this costs a few
chunks, and what breaks restore points by the thousand is seen at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, func, select

from controller.db.database import Database
from controller.db.schema import points
from controller.store.store import ObjectStore, StoreFailedError
from controller.vault import index
from controller.vault.keys import PackKey, pack_key
from protocol.errors import NotFoundError
from protocol.ids import TenantId
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Kind, chunk_id, inspect

WAYS = 8
POINTS = 8
"""So many restore points are sampled after a collection."""
_DEEPEST = 64


@dataclass(slots=True)
class Sampled:
    """What was found. `missing` are chunks that are named and not held, with who names them."""

    point: str
    chunks: int = 0
    missing: list[tuple[ChunkId, ChunkId]] = field(default_factory=list)
    suspects: set[PackKey] = field(default_factory=set)


def some_points(connection: Connection, tenant: str, point: str = "") -> list[tuple[str, ChunkId]]:
    """Id and root of a restore point, or of a few of the tenant's when none is named."""
    wanted = select(points.c.id, points.c.root_id).where(points.c.tenant_id == tenant)
    if point:
        wanted = wanted.where(points.c.id == point)
    else:
        wanted = wanted.order_by(func.random()).limit(POINTS)
    return [(row.id, ChunkId(row.root_id)) for row in connection.execute(wanted)]


def sample(
    store: ObjectStore, db: Database, tenant: str, point: str, root: ChunkId, seed: random.Random
) -> Sampled:
    """Walk `WAYS` ways from a root to leaves. Blocks; what cannot be read ends its way."""
    found = Sampled(point)
    for _ in range(WAYS):
        _walk(store, db, tenant, root, seed, found)
    return found


def _walk(
    store: ObjectStore,
    db: Database,
    tenant: str,
    root: ChunkId,
    seed: random.Random,
    found: Sampled,
) -> None:
    one, above = root, root
    for _ in range(_DEEPEST):
        place = db.read_now(partial(index.locate, tenant=tenant, ids=[one])).get(one)
        if place is None:
            found.missing.append((one, above))
            return
        named = PackKey(TenantId(tenant), place.pack)
        try:
            stored = store.get(pack_key(*named), place.offset, place.length)
        except (NotFoundError, StoreFailedError):
            # It may have been moved a moment ago: the look at the pack will tell.
            found.suspects.add(named)
            return
        if chunk_id(stored) != one:
            found.suspects.add(named)
            return
        found.chunks += 1
        if place.kind is not Kind.TREE:
            return
        try:
            children = inspect(stored).children
        except ChunkDamagedError:
            found.suspects.add(named)
            return
        if not children:
            return
        held = db.read_now(partial(index.held, tenant=tenant, ids=children))
        found.missing += [(child, one) for child in children if child not in held]
        one, above = seed.choice(children), one
