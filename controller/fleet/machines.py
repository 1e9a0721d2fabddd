"""Machines as operators see them: listed, renamed, tagged, shut out.

All of it happens in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from controller.audit.alarms import alarms_in_words
from controller.audit.log import append
from controller.db.schema import (
    certificates,
    drills,
    freezes,
    machine_tags,
    machines,
    points,
    tenants,
)
from controller.fleet.names import check_machine_name, check_tags
from controller.fleet.scope import require_machine, require_tenant, visible
from controller.fleet.summary import NO_SUMMARY, Summary, summaries
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import MachineIdentity, OperatorIdentity
from protocol.ids import MachineId, TenantId

MOST_NAMED = 1000
"""Of more, all are to be asked for."""

REVOKED = "revoked"
RETIRED = "retired"
WAITING = "waiting"
BARRED = {REVOKED: Code.REVOKED, RETIRED: Code.RETIRED, "parked": Code.PARKED}
"""States of a machine that is not let in, and what it is told."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with what is known of it. Times are UTC; `sealing_*` is empty before a link."""

    id: MachineId
    tenant: TenantId
    name: str
    hostname: str
    state: str
    last_seen_at: datetime | None
    enrolled_at: datetime
    agent_version: str
    tags: tuple[str, ...]
    sealing_key: bytes
    sealing_proof: bytes
    summary: Summary = NO_SUMMARY
    last_point_at: datetime | None = None
    last_drill_at: datetime | None = None
    drill_state: str = ""
    """The last good drill, and how the newest one ended; empty when there was none."""
    frozen: tuple[str, ...] = ()
    frozen_at: datetime | None = None
    """Why nothing of it is forgotten, and since when."""
    clone_of: str = ""
    """The machine whose identity it shared; empty for most."""
    audit_alarm: str = ""
    """What it finds wrong with the audit logs, in words."""


def listed(
    connection: Connection,
    operator: OperatorIdentity,
    tenant_id: str = "",
    *,
    named: Collection[str] = (),
    brief: bool = False,
) -> list[Machine]:
    """Machines of one tenant, or of all that the operator may see, by tenant and name.

    `named` are names or ids: only these machines. `brief` ones are without what inventories,
    backups and drills say of them.
    """
    condition = visible(machines.c.tenant_id, operator)
    if tenant_id:
        condition = machines.c.tenant_id == require_tenant(connection, operator, tenant_id)
    query = select(machines).where(condition).order_by(machines.c.tenant_id, machines.c.name)
    if len(named) > MOST_NAMED:
        raise InvalidError(f"at most {MOST_NAMED} machines are named at once, not {len(named)}")
    if named:
        query = query.where(_is_named(named))
    rows = connection.execute(query).all()
    meant = _Meant(operator, tuple(row.id for row in rows) if named else None)
    tags: dict[str, list[str]] = {}
    for row in connection.execute(
        select(machine_tags.c.machine_id, machine_tags.c.tag)
        .where(meant.rows_of(machine_tags))
        .order_by(machine_tags.c.tag)
    ):
        tags.setdefault(row.machine_id, []).append(row.tag)
    found = [_machine(row, tags.get(row.id, ())) for row in rows]
    return found if brief else _with_what_is_known(connection, meant, tenant_id, found)


@dataclass(frozen=True, slots=True)
class _Meant:
    """Whose rows are read: those of `ids`, or for None of all that the operator may see."""

    operator: OperatorIdentity
    ids: tuple[str, ...] | None

    def rows_of(self, table: Table) -> ColumnElement[bool]:
        seen = visible(table.c.tenant_id, self.operator)
        return seen if self.ids is None else and_(seen, table.c.machine_id.in_(self.ids))


def _is_named(named: Collection[str]) -> ColumnElement[bool]:
    """A machine's id, name, or TENANT/NAME is one of these."""
    whole = tenants.c.name + "/" + machines.c.name
    of_tenant = (
        select(tenants.c.id).where(tenants.c.id == machines.c.tenant_id, whole.in_(named)).exists()
    )
    return or_(machines.c.id.in_(named), machines.c.name.in_(named), of_tenant)


def _with_what_is_known(
    connection: Connection, meant: _Meant, tenant_id: str, found: Sequence[Machine]
) -> list[Machine]:
    """The machines with what their inventories, backups and drills say."""
    newest = connection.execute(
        select(points.c.machine_id, func.max(points.c.received_at).label("at"))
        .where(meant.rows_of(points))
        .group_by(points.c.machine_id)
    )
    last_points: dict[str, datetime] = {row.machine_id: row.at for row in newest}
    known = summaries(connection, meant.operator, tenant_id, meant.ids)
    drilled = _drilled(connection, meant)
    frozen = _frozen(connection, meant)
    alarms = alarms_in_words(connection)
    return [
        replace(
            machine,
            summary=known.get(machine.id, NO_SUMMARY),
            last_point_at=last_points.get(machine.id),
            last_drill_at=drilled.get(machine.id, (None, ""))[0],
            drill_state=drilled.get(machine.id, (None, ""))[1],
            frozen=frozen.get(machine.id, ((), None))[0],
            frozen_at=frozen.get(machine.id, ((), None))[1],
            audit_alarm=alarms.get(machine.id, ""),
        )
        for machine in found
    ]


def _drilled(connection: Connection, meant: _Meant) -> dict[str, tuple[datetime | None, str]]:
    """By machine: when its last good drill was received, and how its newest one ended."""
    condition = and_(meant.rows_of(drills), drills.c.kind == "drill")
    good = connection.execute(
        select(drills.c.machine_id, func.max(drills.c.received_at).label("at"))
        .where(condition, drills.c.state == "good")
        .group_by(drills.c.machine_id)
    )
    last_good: dict[str, datetime] = {row.machine_id: row.at for row in good}
    newest = (
        select(drills.c.machine_id, func.max(drills.c.received_at).label("at"))
        .where(condition)
        .group_by(drills.c.machine_id)
        .subquery()
    )
    rows = connection.execute(
        select(drills.c.machine_id, drills.c.state)
        .join(
            newest,
            and_(
                drills.c.machine_id == newest.c.machine_id,
                drills.c.received_at == newest.c.at,
            ),
        )
        .where(condition)
    )
    return {row.machine_id: (last_good.get(row.machine_id), row.state) for row in rows}


def _frozen(connection: Connection, meant: _Meant) -> dict[str, tuple[tuple[str, ...], datetime]]:
    """By machine: why nothing of it is forgotten, and since when."""
    rows = connection.execute(
        select(freezes.c.machine_id, freezes.c.reasons, freezes.c.frozen_at).where(
            meant.rows_of(freezes), freezes.c.frozen_at.is_not(None)
        )
    )
    return {
        row.machine_id: (msgspec.json.decode(row.reasons, type=tuple[str, ...]), row.frozen_at)
        for row in rows
    }


def rename(
    connection: Connection,
    operator: OperatorIdentity,
    machine_id: str,
    name: str,
    *,
    now: datetime,
) -> None:
    """Give a machine another name; INVALID, NOT_FOUND, or ALREADY_EXISTS in its tenant."""
    check_machine_name(name)
    row = require_machine(connection, operator, machine_id)
    if row.name == name:
        return
    if connection.scalar(
        select(machines.c.id).where(machines.c.tenant_id == row.tenant_id, machines.c.name == name)
    ):
        raise SteadError(
            f"the tenant has a machine {name} already; see `stead machine ls`",
            code=Code.ALREADY_EXISTS,
        )
    connection.execute(update(machines).where(machines.c.id == row.id).values(name=name))
    body = {"machine": row.id, "before": row.name, "name": name}
    append(connection, row.tenant_id, _actor(operator), "machine_renamed", body, now)


def tag(
    connection: Connection,
    operator: OperatorIdentity,
    machine_id: str,
    *,
    add: Sequence[str],
    remove: Sequence[str],
    now: datetime,
) -> list[str]:
    """Take tags away, add tags, and return all that the machine has then, sorted."""
    row = require_machine(connection, operator, machine_id)
    before = set(
        connection.scalars(select(machine_tags.c.tag).where(machine_tags.c.machine_id == row.id))
    )
    after = (before - set(remove)) | set(add)
    check_tags(sorted(after))
    if after == before:
        return sorted(after)
    for gone in sorted(before - after):
        connection.execute(
            delete(machine_tags).where(
                machine_tags.c.machine_id == row.id, machine_tags.c.tag == gone
            )
        )
    for new in sorted(after - before):
        connection.execute(
            insert(machine_tags),
            {"machine_id": row.id, "tag": new, "tenant_id": row.tenant_id},
        )
    body = {
        "machine": row.id,
        "added": sorted(after - before),
        "removed": sorted(before - after),
    }
    append(connection, row.tenant_id, _actor(operator), "machine_tagged", body, now)
    return sorted(after)


def revoke(
    connection: Connection, operator: OperatorIdentity, machine_id: str, *, now: datetime
) -> MachineIdentity:
    """Note that a machine is revoked, and return who it is.

    Revoking again changes nothing. The caller tells `Trust` once this is durable.
    """
    row = require_machine(connection, operator, machine_id)
    if row.state != REVOKED:
        _shut_out(connection, operator, row, REVOKED, now)
    return MachineIdentity(TenantId(row.tenant_id), MachineId(row.id))


def retire(
    connection: Connection, operator: OperatorIdentity, machine_id: str, *, now: datetime
) -> MachineIdentity:
    """Take a machine out of use for good, and return who it is; again changes nothing.

    Its row stays, so that its id and its key are never given to another, and its history
    with it. A revoked machine stays one: REVOKED says more than RETIRED. The caller tells
    `Trust` once this is durable.
    """
    row = require_machine(connection, operator, machine_id)
    if row.state == REVOKED:
        raise SteadError(
            f"{row.name} is revoked, which is as much out of use as can be",
            code=Code.PRECONDITION,
        )
    if row.state != RETIRED:
        _shut_out(connection, operator, row, RETIRED, now)
    return MachineIdentity(TenantId(row.tenant_id), MachineId(row.id))


def _shut_out(
    connection: Connection, operator: OperatorIdentity, row: Row[Any], state: str, now: datetime
) -> None:
    connection.execute(update(machines).where(machines.c.id == row.id).values(state=state))
    connection.execute(
        update(certificates)
        .where(certificates.c.machine_id == row.id, certificates.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    body = {"machine": row.id, "name": row.name}
    append(connection, row.tenant_id, _actor(operator), f"machine_{state}", body, now)


def barred(connection: Connection) -> dict[str, Code]:
    """Machines that are not let in, whatever certificate they show, and what they are told."""
    rows = connection.execute(
        select(machines.c.id, machines.c.state).where(machines.c.state.in_(sorted(BARRED)))
    )
    return {row.id: BARRED[row.state] for row in rows}


def keys(connection: Connection) -> dict[str, bytes]:
    """Of every machine that was ever let in, the hash of its key."""
    rows = connection.execute(select(machines.c.id, machines.c.public_key_hash))
    return {row.id: row.public_key_hash for row in rows}


def waiting(connection: Connection) -> list[str]:
    """Clones that nobody approved yet."""
    return list(connection.scalars(select(machines.c.id).where(machines.c.state == WAITING)))


def _machine(row: Row[Any], tags: Sequence[str]) -> Machine:
    return Machine(
        id=MachineId(row.id),
        tenant=TenantId(row.tenant_id),
        name=row.name,
        hostname=row.hostname,
        state=row.state,
        last_seen_at=row.last_seen_at,
        enrolled_at=row.enrolled_at,
        agent_version=row.agent_version,
        tags=tuple(tags),
        sealing_key=row.sealing_key or b"",
        sealing_proof=row.sealing_proof or b"",
        clone_of=row.clone_of or "",
    )


def _actor(operator: OperatorIdentity) -> str:
    return f"operator/{operator.name}"
