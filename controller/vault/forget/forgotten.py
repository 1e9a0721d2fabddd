"""Restore points that were forgotten: kept for a while as if they were not, then gone.

Until it is purged, a forgotten point's chunks are as safe as any other's. Its record's
object goes before its row: a crash between the two leaves a row, and another attempt.
Nothing of a frozen machine is purged: what it forgot before somebody noticed may be all
that is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, delete, insert, select

from controller.audit import log as audit_log
from controller.db.database import Database
from controller.db.schema import forgotten_points, freezes, points, vault_sessions
from controller.store.store import ObjectStore
from controller.vault.upload.sessions import State
from protocol.errors import NotFoundError

_COPIED = [column.name for column in points.columns]


def forget(connection: Connection, point: str, *, reason: str, at: datetime) -> None:
    """Move a restore point to the forgotten ones. The caller has judged and records it."""
    row = connection.execute(select(points).where(points.c.id == point)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no restore point {point}; see `stead backup ls`")
    values = {name: row[name] for name in _COPIED} | {"forgotten_at": at, "reason": reason}
    connection.execute(insert(forgotten_points), values)
    connection.execute(delete(points).where(points.c.id == point))


def bring_back(connection: Connection, point: str) -> None:
    """Undo `forget`."""
    row = (
        connection.execute(select(forgotten_points).where(forgotten_points.c.id == point))
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFoundError(
            f"{point} is not among the forgotten restore points; `stead backup keep MACHINE` "
            "names those"
        )
    connection.execute(insert(points), {name: row[name] for name in _COPIED})
    connection.execute(delete(forgotten_points).where(forgotten_points.c.id == point))


def purge(
    store: ObjectStore, db: Database, tenant: str, now: datetime, undo: timedelta
) -> Iterator[str]:
    """Let go of what was forgotten longer than `undo` ago; yields each one's id.

    Not of what a session goes on from, nor of what a machine forgot that is frozen now.
    """
    for point, key in db.read_now(partial(_due, tenant=tenant, now=now, undo=undo)):
        store.delete(key)
        db.write_now(partial(_purge, tenant=tenant, point=point, at=now))
        yield point


def _due(
    connection: Connection, tenant: str, now: datetime, undo: timedelta
) -> list[tuple[str, str]]:
    in_use = select(vault_sessions.c.parent_point).where(
        vault_sessions.c.tenant_id == tenant,
        vault_sessions.c.state == State.OPEN.value,
        vault_sessions.c.parent_point.is_not(None),
    )
    frozen = select(freezes.c.machine_id).where(freezes.c.frozen_at.is_not(None))
    found = connection.execute(
        select(forgotten_points.c.id, forgotten_points.c.object_key).where(
            forgotten_points.c.tenant_id == tenant,
            forgotten_points.c.forgotten_at <= now - undo,
            forgotten_points.c.id.not_in(in_use),
            forgotten_points.c.machine_id.not_in(frozen),
        )
    )
    return [(row.id, row.object_key) for row in found]


def _purge(connection: Connection, tenant: str, point: str, at: datetime) -> None:
    gone = connection.execute(delete(forgotten_points).where(forgotten_points.c.id == point))
    if gone.rowcount:
        audit_log.append(connection, tenant, "controller", "point_purged", {"point": point}, at)
