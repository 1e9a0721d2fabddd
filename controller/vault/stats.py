"""How much is backed up, what it takes, and how that grew. Functions of a connection.

The controller reads no backup, so what is stored before compression is what the machines
say in their signed restore points: exact while everything that was sent is still there,
and in proportion once something was collected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from controller.db.schema import chunks, packs, points
from protocol.errors import SteadError
from protocol.vault.point import Totals, decode_envelope, decode_point, known

MOST_STEPS = 520
WEEK = timedelta(weeks=1)


@dataclass(slots=True)
class MachineFigures:
    """A machine's restore points. `sent_bytes` is after dedup and compression.

    Named streams count; `stream_bytes` are theirs alone, of all restore points.
    """

    points: int = 0
    logical_bytes: int = 0
    newest_bytes: int = 0
    sent_bytes: int = 0
    stream_bytes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


@dataclass(slots=True)
class Growth:
    """What came in during one step of time."""

    points: int = 0
    logical_bytes: int = 0
    sent_bytes: int = 0
    stored_bytes: int = 0


@dataclass(slots=True)
class Figures:
    """A tenant's vault; see `VaultStats` in `protocol/v1/proof.proto`."""

    tenant: str
    points: int = 0
    logical_bytes: int = 0
    newest_bytes: int = 0
    unique_bytes: int = 0
    unique_is_known: bool = False
    chunk_bytes: int = 0
    chunks: int = 0
    packs: int = 0
    pack_bytes: int = 0
    stream_bytes: int = 0
    machines: dict[str, MachineFigures] = field(default_factory=dict)
    growth: dict[datetime, Growth] = field(default_factory=dict)


def figures(connection: Connection, tenant: str, step: timedelta = WEEK) -> Figures:
    """The figures of a tenant, its growth in steps of time; at most the last 520."""
    found = Figures(tenant)
    # A few columns of each row, and the records one at a time: a vault has many points.
    plain = sent = 0
    rows = connection.execute(
        select(
            points.c.machine_id,
            points.c.received_at,
            points.c.bytes,
            points.c.new_bytes,
            points.c.record,
        )
        .where(points.c.tenant_id == tenant)
        .order_by(points.c.received_at)
    )
    for row in rows:
        machine = found.machines.setdefault(row.machine_id, MachineFigures())
        totals = _totals(row.record)
        streamed = (known(totals.stream_bytes) if totals is not None else 0) or 0
        machine.points += 1
        machine.logical_bytes += row.bytes + streamed
        machine.newest_bytes = row.bytes + streamed
        machine.stream_bytes += streamed
        machine.sent_bytes += row.new_bytes
        machine.first_at = machine.first_at or row.received_at
        machine.last_at = row.received_at
        piece = found.growth.setdefault(step_of(row.received_at, step), Growth())
        piece.points += 1
        piece.logical_bytes += row.bytes + streamed
        piece.sent_bytes += row.new_bytes
        before = known(totals.new_plain_bytes) if totals is not None else None
        if before is not None:
            plain += before
            sent += row.new_bytes
    for machine in found.machines.values():
        found.points += machine.points
        found.logical_bytes += machine.logical_bytes
        found.newest_bytes += machine.newest_bytes
        found.stream_bytes += machine.stream_bytes
    _add_stored(connection, found, step)
    found.unique_is_known = bool(sent) or not found.chunk_bytes
    found.unique_bytes = unique_bytes(plain, sent, found.chunk_bytes)
    found.growth = dict(sorted(found.growth.items())[-MOST_STEPS:])
    return found


def unique_bytes(plain: int, sent: int, stored: int) -> int:
    """What is stored, before compression, by what was sent of which plain size.

    >>> unique_bytes(300, 100, 100), unique_bytes(300, 100, 50), unique_bytes(0, 0, 70)
    (300, 150, 70)
    """
    return round(stored * plain / sent) if sent else stored


def step_of(at: datetime, step: timedelta) -> datetime:
    """When the step that a time is in began.

    >>> step_of(datetime(2026, 5, 3, 12), timedelta(days=1))
    datetime.datetime(2026, 5, 3, 0, 0)
    """
    epoch = datetime(1970, 1, 5, tzinfo=at.tzinfo)  # a Monday
    return epoch + (at - epoch) // step * step


def _add_stored(connection: Connection, found: Figures, step: timedelta) -> None:
    rows = connection.execute(
        select(packs.c.created_at, packs.c.length).where(packs.c.tenant_id == found.tenant)
    )
    for row in rows:
        found.packs += 1
        found.pack_bytes += row.length
        piece = found.growth.setdefault(step_of(row.created_at, step), Growth())
        piece.stored_bytes += row.length
    count, size = connection.execute(
        select(func.count(), func.coalesce(func.sum(chunks.c.length), 0)).where(
            chunks.c.tenant_id == found.tenant
        )
    ).one()
    found.chunks, found.chunk_bytes = int(count), int(size)


def _totals(record: bytes) -> Totals | None:
    try:
        return decode_point(decode_envelope(record).body).totals
    except SteadError:
        return None
