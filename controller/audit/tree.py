"""The Merkle tree of a tenant's log in the database: its nodes, and proofs made of them.

Appending touches none of this. Every 256 entries have one row, the root over them, and
every 256 such rows one more; all other nodes are made from at most 256 hashes when a
checkpoint or a proof wants them. `controller.audit.checkpoints` fills the rows in.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, and_, delete, func, insert, select

from controller.db.schema import audit, audit_nodes
from protocol.errors import Code, SteadError
from protocol.merkle import Node, leaf_hash, node_hash

STEP = 8
"""Rows are kept of every eighth level."""

WIDTH = 1 << STEP
HIGHEST = 40
BLOCKS = 64
"""In memory at once: 511 hashes each, 3 MB together."""


def stored_node(connection: Connection, log: str) -> Node:
    """The function that gives the nodes of a log's full subtrees; for one reading of it.

    DATABASE_DAMAGED when entries or nodes are missing.
    """

    @lru_cache(maxsize=BLOCKS)
    def block_of(level: int, block: int) -> list[list[bytes]]:
        """All full nodes above up to 256 rows of a level that is kept, the rows first.

        Proofs of entries that are near each other are made of the same blocks.
        """
        row = _rows(connection, log, level, block * WIDTH)
        levels = [row]
        while len(row) > 1:
            row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
            levels.append(row)
        return levels

    def node(level: int, number: int) -> bytes:
        up = level % STEP
        first = number << up
        levels = block_of(level - up, first >> STEP)
        place = (first % WIDTH) >> up
        if up >= len(levels) or place >= len(levels[up]):
            raise SteadError(
                f"the audit log of {log or 'the installation'} lacks entries or nodes of its tree",
                code=Code.DATABASE_DAMAGED,
            )
        return levels[up][place]

    return node


def _rows(connection: Connection, log: str, level: int, begin: int) -> list[bytes]:
    """Up to 256 nodes of a level that is kept, from number `begin` up to the first gap."""
    if level:
        number: Column[Any] = audit_nodes.c.number
        mine = and_(audit_nodes.c.tenant_id == log, audit_nodes.c.level == level)
        digest, first = audit_nodes.c.hash, begin
    else:
        # Entries count from 1.
        number, mine = audit.c.seq, and_(audit.c.tenant_id == log)
        digest, first = audit.c.hash, begin + 1
    query = (
        select(number.label("number"), digest.label("hash"))
        .where(mine, number >= first, number < first + WIDTH)
        .order_by(number)
    )
    found: list[bytes] = []
    for row in connection.execute(query):
        if row.number != first + len(found):
            break
        found.append(row.hash if level else leaf_hash(row.hash))
    return found


def fill(connection: Connection, log: str, size: int) -> None:
    """Write the rows that a log of `size` entries has and that are not there yet."""
    for level in range(STEP, HIGHEST, STEP):
        full = size >> level
        if not full:
            return
        # The level below was filled in this very call, so a new reading sees it.
        node = stored_node(connection, log)
        for number in range(_kept(connection, log, level), full):
            made = node_hash(node(level - 1, 2 * number), node(level - 1, 2 * number + 1))
            row = {"tenant_id": log, "level": level, "number": number, "hash": made}
            connection.execute(insert(audit_nodes), row)


def forget_tree(connection: Connection, log: str) -> None:
    """Remove the rows of a log, which `fill` makes anew of its entries."""
    connection.execute(delete(audit_nodes).where(audit_nodes.c.tenant_id == log))


def unfilled(connection: Connection, log: str, size: int) -> int:
    """How many rows of the lowest kept level a log of `size` entries still wants."""
    return max(0, (size >> STEP) - _kept(connection, log, STEP))


def _kept(connection: Connection, log: str, level: int) -> int:
    newest = connection.scalar(
        select(func.max(audit_nodes.c.number)).where(
            audit_nodes.c.tenant_id == log, audit_nodes.c.level == level
        )
    )
    return 0 if newest is None else int(newest) + 1
