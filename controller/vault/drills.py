"""What machines report of their drills, kept with a history. Functions of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select

from controller.audit import log as audit_log
from controller.db.schema import drills
from controller.fleet.scope import require_machine, require_tenant, visible
from protocol.errors import UNREADABLE, InvalidError
from protocol.identity import MachineIdentity, OperatorIdentity
from protocol.ids import check_id

DRILL, SAMPLE = "drill", "sample"
STATES = frozenset({"good", "wrong", "failed"})
KEPT = 400
"""So many of each kind are kept of a machine."""
DEFAULT_LIMIT = 100
_LONGEST = 1000
_LONGEST_DETAILS = 64 * 1024
_MOST = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill, or a sample that was decoded after a backup; see `protocol/v1/proof.proto`."""

    id: str
    machine: str
    point: str
    kind: str
    state: str
    started_at: datetime
    received_at: datetime
    took_ms: int
    files: int
    bytes: int
    compared: int
    wrong: int
    message: str
    details: str


def report(connection: Connection, caller: MachineIdentity, drill: Drill) -> None:
    """Keep a drill of the caller, with an audit entry. The same id again changes nothing.

    Raises `InvalidError` for what no drill can have.
    """
    _check(drill)
    if connection.scalar(select(drills.c.id).where(drills.c.id == drill.id)) is not None:
        return
    connection.execute(
        insert(drills).values(
            id=drill.id,
            tenant_id=caller.tenant,
            machine_id=caller.machine,
            point_id=drill.point,
            kind=drill.kind,
            state=drill.state,
            started_at=drill.started_at,
            received_at=drill.received_at,
            took_ms=drill.took_ms,
            files=drill.files,
            bytes=drill.bytes,
            compared=drill.compared,
            wrong=drill.wrong,
            message=drill.message[:_LONGEST],
            details=drill.details,
        )
    )
    oldest = (
        select(drills.c.received_at)
        .where(drills.c.machine_id == caller.machine, drills.c.kind == drill.kind)
        .order_by(drills.c.received_at.desc())
        .offset(KEPT)
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(
        delete(drills).where(
            drills.c.machine_id == caller.machine,
            drills.c.kind == drill.kind,
            drills.c.received_at <= oldest,
        )
    )
    if drill.kind == DRILL or drill.state != "good":
        body = {
            "drill": drill.id,
            "kind": drill.kind,
            "point": drill.point,
            "state": drill.state,
            "files": drill.files,
            "bytes": drill.bytes,
            "wrong": drill.wrong,
            "took_ms": drill.took_ms,
        }
        audit_log.append(
            connection,
            caller.tenant,
            f"machine/{caller.machine}",
            "drill_reported",
            body,
            drill.received_at,
        )


def listed(
    connection: Connection,
    operator: OperatorIdentity,
    tenant: str = "",
    machine: str = "",
    kind: str = "",
    limit: int = 0,
) -> list[Drill]:
    """Drills that the operator may see, newest first; `NotFoundError` for what he may not."""
    wanted = select(drills).where(
        visible(drills.c.tenant_id, operator), drills.c.kind == (kind or DRILL)
    )
    if tenant:
        wanted = wanted.where(drills.c.tenant_id == require_tenant(connection, operator, tenant))
    if machine:
        row = require_machine(connection, operator, machine)
        wanted = wanted.where(drills.c.machine_id == row.id)
    count = min(limit or DEFAULT_LIMIT, _LONGEST)
    rows = connection.execute(wanted.order_by(drills.c.received_at.desc()).limit(count))
    return [
        Drill(
            id=row.id,
            machine=row.machine_id,
            point=row.point_id,
            kind=row.kind,
            state=row.state,
            started_at=row.started_at,
            received_at=row.received_at,
            took_ms=row.took_ms,
            files=row.files,
            bytes=row.bytes,
            compared=row.compared,
            wrong=row.wrong,
            message=row.message,
            details=row.details,
        )
        for row in rows
    ]


def _check(drill: Drill) -> None:
    check_id("dr", drill.id)
    if drill.point:
        check_id("rp", drill.point)
    if drill.kind not in (DRILL, SAMPLE):
        raise InvalidError(f"{drill.kind[:40]!r} is no kind of drill")
    if drill.state not in STATES:
        raise InvalidError(f"{drill.state[:40]!r} is not a state that a drill can end in")
    if max(drill.files, drill.compared, drill.wrong) > _MOST:
        raise InvalidError("no drill restores so many files")
    if max(drill.bytes, drill.took_ms) >= 1 << 62 or drill.took_ms < 0:
        raise InvalidError("no drill takes so long or restores so much")
    if len(drill.details) > _LONGEST_DETAILS:
        raise InvalidError(f"the details of a drill have at most {_LONGEST_DETAILS} bytes")
    try:
        msgspec.json.decode(drill.details or "[]")
    except UNREADABLE as error:
        raise InvalidError(f"the details of a drill are not JSON: {error}") from error
