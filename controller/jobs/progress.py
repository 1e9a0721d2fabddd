"""What machines say about their tasks, written down: offered, running, output, over.

Every function is an act inside one database transaction and answers with the id of
the job that changed, for the feed, or None when there was nothing to change: a
message repeated after a reconnect does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection, and_, bindparam, case, insert, or_, select, update

from controller.audit.log import append
from controller.db.schema import jobs, machines, operators, task_output, tasks
from controller.db.unindexed import unindexed
from controller.jobs.state import (
    AT_WORK,
    AWAITING,
    OFFERED,
    OPEN,
    PRESUMED,
    QUEUED,
    RUNNING,
    SILENCE,
    UNDELIVERED,
    WAITING,
    may_follow,
)
from protocol.action import NAMES, RevokeStanding
from protocol.errors import InvalidError
from protocol.identity import MachineIdentity
from protocol.outcome import Outcome, OutcomeState

log = structlog.get_logger()

MAX_OUTPUT_BYTES = 32 * 1024 * 1024
"""Twice what an agent keeps of a task's output, pieces of a line each included."""

PIECE_COST_BYTES = 128
"""What a piece takes up beside its data: output of nothing must have an end, too."""

MAX_PIECE = (1 << 31) - 1
MAX_RESULT_BYTES = 16 * 1024 * 1024
MAX_MESSAGE = 4000
MAX_CODE = 64

# What every piece of output runs is built once: to build a statement takes longer than to run it.
_FIND = select(
    tasks.c.job_id,
    tasks.c.state,
    tasks.c.code,
    tasks.c.started_at,
    tasks.c.output_truncated,
    tasks.c.output_bytes,
).where(
    tasks.c.id == bindparam("task"),
    tasks.c.machine_id == bindparam("machine"),
    tasks.c.tenant_id == bindparam("tenant"),
)
_PIECE = select(task_output.c.seq).where(
    task_output.c.task_id == bindparam("task"), task_output.c.seq == bindparam("sequence")
)
_ADD_PIECE = insert(task_output)
_COUNT_PIECE = (
    update(tasks).where(tasks.c.id == bindparam("task")).values(output_bytes=bindparam("kept"))
)


_WHAT_ENDS_FIRST = case((jobs.c.action == NAMES[RevokeStanding], 0), else_=1)
_REVOKED = select(operators.c.name).where(operators.c.revoked_at.is_not(None))
OPEN_TASKS = (
    select(tasks.c.id, jobs.c.envelope)
    .join(jobs, jobs.c.id == tasks.c.job_id)
    .where(
        tasks.c.machine_id == bindparam("machine"),
        unindexed(tasks.c.tenant_id) == bindparam("tenant"),
        tasks.c.state.in_(bindparam("states", expanding=True)),
        jobs.c.operator.not_in(_REVOKED),
        jobs.c.slot.is_(None),
    )
    .order_by(_WHAT_ENDS_FIRST, tasks.c.id)
    .limit(1000)
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A task to hand to its machine."""

    task: str
    envelope: bytes


def open_tasks(
    connection: Connection, machine: MachineIdentity, states: Sequence[str] = AT_WORK
) -> list[Offer]:
    """The machine's tasks in these states, oldest first, but for revoked operators'.

    What it got of those before it ends by itself. What revokes a standing order comes before
    all else. Runs of standing orders are the machine's own.
    """
    asked = {"machine": machine.machine, "tenant": machine.tenant, "states": list(states)}
    return [Offer(row.id, row.envelope) for row in connection.execute(OPEN_TASKS, asked)]


def mark_offered(
    connection: Connection, machine: MachineIdentity, ids: Sequence[str], at: datetime
) -> dict[str, str]:
    """Note that tasks are handed to their machine: those that may be, with their jobs.

    One that was cancelled or taken back since it was read is not handed over.
    """
    offered: dict[str, str] = {}
    for task in ids:
        row = _find(connection, machine, task)
        if row is None or row.state not in AT_WORK:
            continue
        if row.state == QUEUED:
            _set(connection, task, state=OFFERED, offered_at=at, lease_until=at + SILENCE)
        offered[task] = row.job_id
    return offered


def mark_running(
    connection: Connection, machine: MachineIdentity, task: str, started_at: datetime, at: datetime
) -> str | None:
    """Note that a machine began."""
    row = _find(connection, machine, task)
    if row is None or not may_follow(row.state, row.code or "", RUNNING):
        return None
    _set(connection, task, state=RUNNING, started_at=started_at, lease_until=at + SILENCE)
    return str(row.job_id)


def add_output(
    connection: Connection,
    machine: MachineIdentity,
    task: str,
    sequence: int,
    stream: str,
    data: bytes,
    at: datetime,
) -> str | None:
    """Keep a piece of output, unless it is kept already or there is too much.

    Raises INVALID for a number that no piece can have.
    """
    if sequence > MAX_PIECE:
        raise InvalidError(f"{sequence} is not the number of a piece of output")
    row = _find(connection, machine, task)
    if row is None:
        return None
    if connection.scalar(_PIECE, {"task": task, "sequence": sequence}) is not None:
        return None
    kept = row.output_bytes + len(data) + PIECE_COST_BYTES
    if kept > MAX_OUTPUT_BYTES:
        if not row.output_truncated:
            _set(connection, task, output_truncated=True)
        return None
    connection.execute(
        _ADD_PIECE,
        {
            "task_id": task,
            "seq": sequence,
            "tenant_id": machine.tenant,
            "stream": stream,
            "data": data,
            "at": at,
        },
    )
    connection.execute(_COUNT_PIECE, {"task": task, "kept": kept})
    return str(row.job_id)


def end(
    connection: Connection, machine: MachineIdentity, outcome: Outcome, at: datetime
) -> str | None:
    """Keep a task's outcome and its audit entry; the first one counts.

    What a machine says of itself is cut to a length; a result that is cut would be none.
    """
    row = _find(connection, machine, outcome.task)
    if row is None:
        # Acknowledged all the same, or it would be told for ever; see ADR 60.
        log.warning(
            "outcome_of_unknown_task",
            machine=machine.machine,
            task=outcome.task,
            state=outcome.state.value,
            code=outcome.code[:MAX_CODE],
        )
        return None
    if not may_follow(row.state, row.code or "", outcome.state):
        return None
    too_long = len(outcome.result) > MAX_RESULT_BYTES
    message = outcome.message[:MAX_MESSAGE]
    if too_long:
        message = f"its result of {len(outcome.result)} bytes was not kept. {message}".strip()
    code = outcome.code[:MAX_CODE]
    _set(
        connection,
        outcome.task,
        state=outcome.state.value,
        code=code,
        message=message,
        exit_code=outcome.exit_code,
        result=b"" if too_long else outcome.result,
        started_at=outcome.started_at or row.started_at,
        ended_at=outcome.ended_at or at,
        lease_until=None,
        output_truncated=row.output_truncated or outcome.output_truncated,
    )
    append(
        connection,
        machine.tenant,
        actor=f"machine/{machine.machine}",
        event="task_ended",
        body={
            "order": row.job_id,
            "task": outcome.task,
            "state": outcome.state.value,
            "code": code,
            "exit_code": outcome.exit_code,
        },
        at=at,
    )
    return str(row.job_id)


def renew_leases(
    connection: Connection, machine: MachineIdentity, running: Sequence[str], at: datetime
) -> None:
    """The machine lives: note it, and let its running tasks go on."""
    connection.execute(
        update(machines).where(machines.c.id == machine.machine).values(last_seen_at=at)
    )
    if running:
        connection.execute(
            update(tasks)
            .where(
                tasks.c.id.in_(list(running)[:1000]),
                tasks.c.machine_id == machine.machine,
                tasks.c.state.in_(OPEN),
            )
            .values(lease_until=at + SILENCE)
        )


def sweep(connection: Connection, now: datetime) -> set[str]:
    """End what nobody will end: tasks never delivered in time, machines gone silent."""
    late = and_(tasks.c.state.in_(UNDELIVERED), jobs.c.deliver_by < now)
    silent = and_(tasks.c.state.in_((OFFERED, RUNNING)), tasks.c.lease_until < now)
    query = (
        select(tasks.c.id, tasks.c.job_id, tasks.c.tenant_id, tasks.c.state)
        .join(jobs, jobs.c.id == tasks.c.job_id)
        .where(or_(late, silent))
        .limit(1000)
    )
    changed: set[str] = set()
    for row in connection.execute(query).all():
        if row.state in UNDELIVERED:
            state, code = OutcomeState.EXPIRED, "expired"
            message = "the machine did not appear before the order's last time for delivery"
            if row.state == AWAITING:
                message = "nobody approved it before the order's last time for delivery"
            if row.state == WAITING:
                message = "its batch did not begin before the order's last time for delivery"
        else:
            state, code = OutcomeState.INDETERMINATE, PRESUMED
            message = "the machine was not heard of for 24 hours since it got the order"
        _set(
            connection,
            row.id,
            state=state.value,
            code=code,
            message=message,
            ended_at=now,
            lease_until=None,
        )
        append(
            connection,
            row.tenant_id,
            actor="controller",
            event="task_ended",
            body={"order": row.job_id, "task": row.id, "state": state.value, "code": code},
            at=now,
        )
        changed.add(row.job_id)
    return changed


def cancel_all_of(connection: Connection, operator: str, actor: str, at: datetime) -> list[str]:
    """Cancel what no machine has got of an operator's orders; the jobs that changed.

    Who is revoked must not act through orders that wait for machines.
    """
    query = (
        select(jobs.c.id)
        .where(jobs.c.operator == operator)
        .where(jobs.c.id.in_(select(tasks.c.job_id).where(tasks.c.state.in_(UNDELIVERED))))
    )
    waiting = list(connection.scalars(query))
    for job in waiting:
        cancel(connection, job, actor, at)
    return waiting


def cancel(connection: Connection, job: str, actor: str, at: datetime) -> bool:
    """Cancel the tasks of a job that no machine has got; True when there were any."""
    row = connection.execute(select(jobs.c.tenant_id).where(jobs.c.id == job)).one()
    done = connection.execute(
        update(tasks)
        .where(tasks.c.job_id == job, tasks.c.state.in_(UNDELIVERED))
        .values(
            state=OutcomeState.CANCELLED.value,
            code="",
            message=f"cancelled by {actor} before it was delivered",
            ended_at=at,
        )
    )
    if done.rowcount:
        append(
            connection,
            row.tenant_id,
            actor=f"operator/{actor}",
            event="job_cancelled",
            body={"order": job, "tasks": done.rowcount},
            at=at,
        )
    return bool(done.rowcount)


def _find(connection: Connection, machine: MachineIdentity, task: str) -> Any:
    named = {"task": task, "machine": machine.machine, "tenant": machine.tenant}
    return connection.execute(_FIND, named).one_or_none()


def _set(connection: Connection, task: str, **values: Any) -> None:
    connection.execute(update(tasks).where(tasks.c.id == task).values(**values))
