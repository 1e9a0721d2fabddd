"""The Merkle tree of a tenant's log in the database: its nodes, and proofs made of them.

Appending touches none of this. Every 256 entries have one row, the root over them, and
every 256 such rows one more; all other nodes are made from at most 256 hashes when a
checkpoint or a proof wants them. `controller.audit.checkpoints` fills the rows in.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Connection, delete, func, insert, select

from controller.db.schema import audit, audit_nodes
from protocol.errors import Code, SteadError
from protocol.merkle import Node, fold_full, leaf_hash, node_hash

STEP = 8
"""Rows are kept of every eighth level."""

WIDTH = 1 << STEP
HIGHEST = 40


def stored_node(connection: Connection, log: str) -> Node:
    """The function that gives the nodes of a log's full subtrees; for one reading of it.

    DATABASE_DAMAGED when entries or nodes are missing.
    """

    @lru_cache(maxsize=64)
    def row_of(level: int, begin: int, count: int) -> tuple[bytes, ...]:
        if level == 0:
            query = (
                select(audit.c.hash)
                .where(audit.c.tenant_id == log, audit.c.seq > begin, audit.c.seq <= begin + count)
                .order_by(audit.c.seq)
            )
            found = tuple(leaf_hash(one) for one in connection.scalars(query))
        else:
            query = (
                select(audit_nodes.c.hash)
                .where(
                    audit_nodes.c.tenant_id == log,
                    audit_nodes.c.level == level,
                    audit_nodes.c.number >= begin,
                    audit_nodes.c.number < begin + count,
                )
                .order_by(audit_nodes.c.number)
            )
            found = tuple(connection.scalars(query))
        if len(found) != count:
            raise SteadError(
                f"the audit log of {log or 'the installation'} lacks entries or nodes of its tree",
                code=Code.DATABASE_DAMAGED,
            )
        return found

    def node(level: int, number: int) -> bytes:
        below = level - level % STEP
        count = 1 << (level - below)
        return fold_full(row_of(below, number * count, count))

    return node


def fill(connection: Connection, log: str, size: int) -> None:
    """Write the rows that a log of `size` entries has and that are not there yet."""
    for level in range(STEP, HIGHEST, STEP):
        full = size >> level
        if not full:
            return
        # The level below was filled in this very call, so a new reading sees it.
        node = stored_node(connection, log)
        for number in range(_kept(connection, log, level), full):
            # Each half is one reading of 128 hashes; all nodes below would be one reading each.
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
