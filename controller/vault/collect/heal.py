"""Take the tombstones off everything that restore points need.

A database that was put back may call dead what lives since. A rebuild of the index knows
the restore points, so it follows them, through trees that are called dead as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, select

from controller.db.database import Database
from controller.db.schema import chunks
from controller.store.store import ObjectStore
from controller.vault import index
from controller.vault.collect import generation as rows
from controller.vault.collect.condemn import packs_of
from controller.vault.collect.mark import follow
from controller.vault.collect.marks import Marks, Tree
from protocol.vault.chunk import ChunkId, Kind


def heal(store: ObjectStore, db: Database, tenant: str) -> None:
    """See the module; forgotten restore points count as others. Blocks.

    Raises `MarkingStoppedError` at a tree that cannot be read: what was reached lives.
    """
    if not db.read_now(partial(index.has_tombstones, tenant=tenant)):
        return

    def live(ids: Sequence[ChunkId]) -> None:
        db.write_now(partial(index.lift, tenant=tenant, ids=list(ids)))

    with Marks(db.folder / f"marks-{tenant}.scratch") as marks:
        names = {}
        for pack in db.read_now(partial(packs_of, tenant=tenant)):
            names[pack.number] = pack.name
            if pack.kind is Kind.TREE:
                marks.add_trees(db.read_now(partial(_trees_of, number=pack.number)))
        found = list(db.read_now(partial(rows.roots, tenant=tenant)).values())
        marks.reach(found)
        live(found)
        for _ in follow(marks, store, tenant, names, live):
            pass


def _trees_of(connection: Connection, number: int) -> list[Tree]:
    found = connection.execute(
        select(chunks.c.id, chunks.c.offset, chunks.c.length).where(chunks.c.pack_number == number)
    )
    return [Tree(row.id, number, row.offset, row.length) for row in found]
