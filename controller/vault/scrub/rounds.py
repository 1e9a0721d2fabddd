"""Rounds of scrubbing as the database remembers them, so that a restart goes on with one.

Functions of a connection, for `Database.write` and `Database.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from controller.db.schema import (
    damages,
    doomed_packs,
    lost_chunks,
    packs,
    points,
    scrubs,
    unreadable,
)
from controller.db.upsert import upsert
from controller.vault import index
from controller.vault.keys import PackKey
from controller.vault.scrub.pace import Round
from protocol.ids import TenantId
from protocol.vault.chunk import ChunkId
from protocol.vault.pack import PackId

STEADY, ORDERED = "steady", "ordered"
KEPT_ROUNDS = 50


class Position(msgspec.Struct, frozen=True):
    """What was looked at last: packs by name first, then restore points by id."""

    points: bool = False
    after: str = ""


@dataclass(frozen=True, slots=True)
class OpenRound:
    """A round that is under way."""

    tenant: str
    number: int
    position: Position


@dataclass(slots=True)
class Counts:
    """What a round, or a piece of one, has seen."""

    packs: int = 0
    bytes: int = 0
    points: int = 0
    damaged: int = 0
    unreadable: int = 0

    def add(self, other: Counts) -> None:
        """Count what another piece has seen as well."""
        self.packs += other.packs
        self.bytes += other.bytes
        self.points += other.points
        self.damaged += other.damaged
        self.unreadable += other.unreadable


class NextPack(NamedTuple):
    """A pack to look at."""

    named: PackKey
    number: int
    length: int


def open_rounds(connection: Connection) -> list[Round]:
    """The newest steady round of every tenant that has something stored."""
    newest = (
        select(scrubs.c.tenant_id, func.max(scrubs.c.number).label("number"))
        .where(scrubs.c.kind == STEADY)
        .group_by(scrubs.c.tenant_id)
        .subquery()
    )
    known = {
        row.tenant_id: row
        for row in connection.execute(
            select(scrubs).join(
                newest,
                and_(scrubs.c.tenant_id == newest.c.tenant_id, scrubs.c.number == newest.c.number),
            )
        )
    }
    totals = connection.execute(
        select(packs.c.tenant_id, func.sum(packs.c.length)).group_by(packs.c.tenant_id)
    ).all()
    found = []
    for tenant, total in totals:
        row = known.get(tenant)
        if row is None:
            found.append(Round(tenant, None, False, 0, int(total)))
        else:
            found.append(Round(tenant, row.began_at, row.ended_at is None, row.bytes, int(total)))
    return found


def take_up(connection: Connection, tenant: str, kind: str, at: datetime) -> OpenRound:
    """The round of this kind that is under way, or a new one."""
    row = connection.execute(
        select(scrubs)
        .where(scrubs.c.tenant_id == tenant, scrubs.c.kind == kind, scrubs.c.ended_at.is_(None))
        .order_by(scrubs.c.number.desc())
        .limit(1)
    ).one_or_none()
    if row is not None:
        position = msgspec.json.decode(row.position, type=Position)
        return OpenRound(tenant, row.number, position)
    last = connection.scalar(select(func.max(scrubs.c.number)).where(scrubs.c.tenant_id == tenant))
    number = int(last or 0) + 1
    connection.execute(
        insert(scrubs).values(
            tenant_id=tenant, number=number, kind=kind, began_at=at, position="{}",
            packs=0, bytes=0, points=0, damaged=0, unreadable=0,
        )
    )  # fmt: skip
    connection.execute(
        delete(scrubs).where(scrubs.c.tenant_id == tenant, scrubs.c.number <= number - KEPT_ROUNDS)
    )
    return OpenRound(tenant, number, Position())


def advance(
    connection: Connection,
    one: OpenRound,
    position: Position,
    seen: Counts,
    ended_at: datetime | None,
) -> None:
    """Note how far a round has come, and that it has ended."""
    row = scrubs.c
    connection.execute(
        update(scrubs)
        .where(row.tenant_id == one.tenant, row.number == one.number)
        .values(
            position=msgspec.json.encode(position).decode(),
            packs=row.packs + seen.packs,
            bytes=row.bytes + seen.bytes,
            points=row.points + seen.points,
            damaged=row.damaged + seen.damaged,
            unreadable=row.unreadable + seen.unreadable,
            ended_at=ended_at,
        )
    )


def next_pack(connection: Connection, tenant: str, after: str) -> NextPack | None:
    """The pack that follows a name; None at the end."""
    row = connection.execute(
        select(packs.c.id, packs.c.number, packs.c.length)
        .where(packs.c.tenant_id == tenant, packs.c.id > after)
        .order_by(packs.c.id)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return NextPack(PackKey(TenantId(tenant), PackId(row.id)), row.number, row.length)


def find_pack(connection: Connection, named: PackKey) -> NextPack | None:
    """A pack as it is entered now; None when it is not, or is waiting to be deleted."""
    row = connection.execute(
        select(packs.c.number, packs.c.length).where(
            packs.c.tenant_id == named.tenant, packs.c.id == named.pack
        )
    ).one_or_none()
    doomed = select(doomed_packs.c.id).where(
        doomed_packs.c.tenant_id == named.tenant, doomed_packs.c.id == named.pack
    )
    if row is None or connection.scalar(doomed) is not None:
        return None
    return NextPack(named, row.number, row.length)


def note_unreadable(
    connection: Connection, tenant: str, key: str, reason: str, at: datetime
) -> bool:
    """Remember that an object could not be read; whether it could be before."""
    statement = upsert(connection, unreadable)
    known = connection.scalar(
        select(unreadable.c.tries).where(
            unreadable.c.tenant_id == tenant, unreadable.c.object_key == key
        )
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "object_key"],
            set_={"last_at": at, "tries": unreadable.c.tries + 1, "reason": reason},
        ),
        {
            "tenant_id": tenant,
            "object_key": key,
            "first_at": at,
            "last_at": at,
            "tries": 1,
            "reason": reason,
        },
    )
    return known is None


def note_readable(connection: Connection, tenant: str, key: str) -> None:
    """Forget that an object could not be read."""
    connection.execute(
        delete(unreadable).where(unreadable.c.tenant_id == tenant, unreadable.c.object_key == key)
    )


def to_try_again(connection: Connection, before: datetime) -> list[str]:
    """Keys of objects that could not be read and were last tried before a time."""
    return list(
        connection.scalars(
            select(unreadable.c.object_key)
            .where(unreadable.c.last_at < before)
            .order_by(unreadable.c.last_at)
            .limit(100)
        )
    )


def next_point(connection: Connection, tenant: str, after: str) -> tuple[str, str] | None:
    """Machine and id of the restore point that follows an id; None at the end."""
    row = connection.execute(
        select(points.c.machine_id, points.c.id)
        .where(points.c.tenant_id == tenant, points.c.id > after)
        .order_by(points.c.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else (row.machine_id, row.id)


def some_packs(connection: Connection, tenant: str, count: int) -> list[str]:
    """Names of packs that should be there, as if drawn: a name is a hash."""
    return list(
        connection.scalars(
            select(packs.c.id).where(packs.c.tenant_id == tenant).order_by(packs.c.id).limit(count)
        )
    )


def is_unreadable(connection: Connection, tenant: str, key: str) -> bool:
    """Whether an object could not be read when it was tried last."""
    found = select(unreadable.c.tries).where(
        unreadable.c.tenant_id == tenant, unreadable.c.object_key == key
    )
    return connection.scalar(found) is not None


def total_bytes(connection: Connection, tenants: Sequence[str]) -> int:
    """The length of all packs of these tenants."""
    found = connection.scalar(
        select(func.sum(packs.c.length)).where(packs.c.tenant_id.in_(list(tenants)))
    )
    return int(found or 0)


def abandon(connection: Connection, tenant: str, kind: str) -> None:
    """Forget rounds of this kind that were never ended."""
    connection.execute(
        delete(scrubs).where(
            scrubs.c.tenant_id == tenant, scrubs.c.kind == kind, scrubs.c.ended_at.is_(None)
        )
    )


def damages_since(connection: Connection, tenant: str, at: datetime) -> int:
    """How many damages were found since then."""
    found = select(func.count()).where(damages.c.tenant_id == tenant, damages.c.found_at > at)
    return int(connection.scalar(found) or 0)


def stored_bytes(connection: Connection) -> int:
    """The length of all packs of all tenants."""
    return int(connection.scalar(select(func.sum(packs.c.length))) or 0)


def has_losses(connection: Connection, tenant: str) -> bool:
    """Whether chunks of the tenant are known to be lost."""
    found = select(lost_chunks.c.damage).where(lost_chunks.c.tenant_id == tenant).limit(1)
    return connection.scalar(found) is not None


def missing_root(connection: Connection, point: str) -> ChunkId | None:
    """The root of a restore point when it is not held; None when it is, or the point is gone."""
    row = connection.execute(
        select(points.c.tenant_id, points.c.root_id).where(points.c.id == point)
    ).one_or_none()
    if row is None:
        return None
    root = ChunkId(row.root_id)
    return None if index.held(connection, row.tenant_id, [root]) else root
