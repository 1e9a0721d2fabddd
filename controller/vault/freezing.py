"""Freeze forgetting for a machine whose restore points look wrong, until an operator has looked.

Functions of a connection, each whole in one transaction with its entry in the audit log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from controller.audit.log import append
from controller.db.schema import freezes, points
from controller.db.upsert import upsert
from controller.vault.alarm import LOOKS_BACK, Alarm, Figures, first_alarm, newest_alarm
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.vault.point import decode_envelope, decode_point, verify_point

MAX_REASON = 500
CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class Machine:
    """Whose restore points are judged."""

    id: str
    tenant: str


def unfreeze(
    connection: Connection, machine: Machine, reason: str, *, actor: str, at: datetime
) -> None:
    """An operator has looked at everything that was received until now."""
    check_reason(reason)
    if alarm_of(connection, machine) is None:
        raise NotFoundError("nothing is frozen for this machine")
    through = connection.scalar(
        select(points.c.received_at)
        .where(points.c.machine_id == machine.id)
        .order_by(points.c.received_at.desc())
        .limit(1)
    )
    values = {"released_through": through, "frozen_at": None, "point_id": None, "reasons": "[]"}
    _write_freeze(connection, machine, values)
    append(connection, machine.tenant, actor, "retention_unfrozen", {"reason": reason}, at)


def alarm_of(connection: Connection, machine: Machine) -> Alarm | None:
    """Why nothing of a machine is forgotten, since nobody said that it is right."""
    released = connection.scalar(
        select(freezes.c.released_through).where(freezes.c.machine_id == machine.id)
    )
    found = connection.execute(
        select(points.c.id, points.c.received_at, points.c.record).where(
            points.c.machine_id == machine.id
        )
    )
    figures = [
        Figures(row.id, row.received_at, verify_point(decode_envelope(row.record)).totals)
        for row in found
    ]
    return first_alarm(figures, released_through=released)


def note_newest(connection: Connection, machine: Machine, at: datetime) -> None:
    """Note a freeze when the newest restore point looks wrong, unless one is noted already."""
    noted = connection.execute(
        select(freezes.c.frozen_at, freezes.c.released_through).where(
            freezes.c.machine_id == machine.id
        )
    ).one_or_none()
    if noted is not None and noted.frozen_at is not None:
        return
    mine = (
        select(points.c.id, points.c.received_at, points.c.record)
        .where(points.c.machine_id == machine.id)
        .order_by(points.c.received_at.desc())
    )
    recent = connection.execute(mine.where(points.c.received_at >= at - LOOKS_BACK)).all()
    found = recent if len(recent) > 1 else connection.execute(mine.limit(2)).all()
    # They were verified when they came.
    figures = [
        Figures(row.id, row.received_at, decode_point(decode_envelope(row.record).body).totals)
        for row in found
    ]
    released = None if noted is None else noted.released_through
    alarm = newest_alarm(figures, released_through=released)
    if alarm is not None:
        note_freeze(connection, machine, alarm, at)


def note_freeze(connection: Connection, machine: Machine, alarm: Alarm, at: datetime) -> None:
    """Note it once, with an entry in the audit log."""
    known = connection.scalar(select(freezes.c.point_id).where(freezes.c.machine_id == machine.id))
    if known == alarm.point:
        return
    reasons = list(alarm.reasons)
    text = msgspec.json.encode(reasons).decode()
    _write_freeze(connection, machine, {"point_id": alarm.point, "frozen_at": at, "reasons": text})
    body = {"machine": machine.id, "point": alarm.point, "reasons": reasons}
    append(connection, machine.tenant, CONTROLLER, "retention_frozen", body, at)


def _write_freeze(connection: Connection, machine: Machine, values: dict[str, object]) -> None:
    connection.execute(
        upsert(connection, freezes).on_conflict_do_update(
            index_elements=["machine_id"], set_=values
        ),
        {"machine_id": machine.id, "tenant_id": machine.tenant} | values,
    )


def frozen(alarm: Alarm) -> SteadError:
    """What somebody is told who forgets all the same."""
    return SteadError(
        f"nothing is forgotten: {alarm.point} looks wrong ({'; '.join(alarm.reasons)}); look at "
        "it, then `stead backup unfreeze MACHINE --reason TEXT`",
        code=Code.PRECONDITION,
    )


def check_reason(reason: str) -> None:
    """A reason is something that somebody can read later."""
    if not reason.strip() or len(reason) > MAX_REASON:
        raise InvalidError(f"say why, in at most {MAX_REASON} characters: --reason TEXT")
