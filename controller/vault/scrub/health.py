"""How well a tenant's vault is known to be: its rounds, what was lost, what cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from controller.db.schema import damages, lost_chunks, packs, scrubs, unreadable
from controller.vault.hits import decode_hit
from controller.vault.scrub.rounds import Counts


@dataclass(frozen=True, slots=True)
class PastRound:
    """A round that has ended or is under way."""

    number: int
    kind: str
    began_at: datetime
    ended_at: datetime | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class OpenDamage:
    """A pack that was put aside. `hit` is None until it is known; `missing` goes down to 0."""

    number: int
    object_key: str
    found_at: datetime
    reason: str
    kept: int
    lost: int
    missing: int
    hit: dict[str, list[str]] | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that could not be read when it was tried last."""

    object_key: str
    first_at: datetime
    last_at: datetime
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """How well a tenant's vault is known to be."""

    tenant: str
    packs: int
    total_bytes: int
    rounds: list[PastRound]
    damages: list[OpenDamage]
    unreadable: list[Unreadable]


def health(connection: Connection, tenant: str, *, shown: int = 10) -> Health:
    """What is known of a tenant's vault; the newest `shown` rounds."""
    count, total = connection.execute(
        select(func.count(), func.coalesce(func.sum(packs.c.length), 0)).where(
            packs.c.tenant_id == tenant
        )
    ).one()
    rounds = connection.execute(
        select(scrubs)
        .where(scrubs.c.tenant_id == tenant)
        .order_by(scrubs.c.number.desc())
        .limit(shown)
    )
    missing: dict[int, int] = {
        row[0]: row[1]
        for row in connection.execute(
            select(lost_chunks.c.damage, func.count())
            .where(lost_chunks.c.tenant_id == tenant)
            .group_by(lost_chunks.c.damage)
        )
    }
    found = connection.execute(
        select(damages).where(damages.c.tenant_id == tenant).order_by(damages.c.number.desc())
    )
    unread = connection.execute(
        select(unreadable).where(unreadable.c.tenant_id == tenant).order_by(unreadable.c.object_key)
    )
    return Health(
        tenant=tenant,
        packs=int(count),
        total_bytes=int(total),
        rounds=[
            PastRound(
                row.number,
                row.kind,
                row.began_at,
                row.ended_at,
                Counts(row.packs, row.bytes, row.points, row.damaged, row.unreadable),
            )
            for row in rounds
        ],
        damages=[
            OpenDamage(
                row.number,
                row.object_key,
                row.found_at,
                row.reason,
                row.kept_chunks,
                row.lost_chunks,
                missing.get(row.number, 0),
                None if row.hit is None else decode_hit(row.hit),
            )
            for row in found
        ],
        unreadable=[
            Unreadable(row.object_key, row.first_at, row.last_at, row.tries, row.reason)
            for row in unread
        ],
    )
