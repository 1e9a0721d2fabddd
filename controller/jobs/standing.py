"""Standing orders as the controller knows them: taken to their machines, run, revoked.

Machines run them by themselves and say so; a run becomes a job that belongs to the order,
with a task for each machine that made it. Every function is an act inside one database
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from controller.db.schema import jobs, machines, standing_orders, standing_runs, tasks
from controller.jobs.state import OPEN, RUNNING, SILENCE
from protocol.action import NAMES, RevokeStanding
from protocol.errors import InvalidError, NotFoundError
from protocol.identity import MachineIdentity, OperatorIdentity
from protocol.ids import check_id
from protocol.order import Order
from protocol.outcome import OutcomeState
from protocol.standing import Run, job_of_run

LISTED = 1000
_REVOKE = NAMES[RevokeStanding]


class _TakenIn(msgspec.Struct):
    """What a machine answers when it has taken an order in."""

    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MachineView:
    """How an order stands on a machine; see `StandingMachine` in `protocol/v1/job.proto`."""

    machine: str
    name: str
    state: str
    message: str = ""
    taken_in_at: datetime | None = None
    runs: int = 0
    last_run_at: datetime | None = None
    last_state: str = ""
    last_job: str = ""
    next_run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StandingView:
    """A standing order: rows of `jobs` and `standing_orders` as one, and its machines."""

    order: Row[Any]
    machines: Sequence[MachineView]


def state_of(taken: str, revoked: str, *, ended: bool, runs: int = 0, max_runs: int = 0) -> str:
    """How an order stands, by the states of the task that took it there and of the one that
    revokes it (empty for none).

    >>> state_of("succeeded", "", ended=False), state_of("succeeded", "queued", ended=False)
    ('in force', 'revoking')
    >>> state_of("cancelled", "succeeded", ended=False), state_of("queued", "", ended=False)
    ('revoked', 'sent')
    """
    if revoked == OutcomeState.SUCCEEDED:
        return "revoked"
    if taken in OPEN:
        return "revoking" if revoked in OPEN else "sent"
    if taken == OutcomeState.CANCELLED:
        return "revoked"
    if taken not in (OutcomeState.SUCCEEDED, OutcomeState.INDETERMINATE):
        return "refused"
    if ended or (max_runs and runs >= max_runs):
        return "ended"
    return "revoking" if revoked in OPEN else "in force"


def note_standing(connection: Connection, order: Order) -> None:
    """Note that an order stands; the job is there already."""
    if order.standing is None:
        return
    connection.execute(
        insert(standing_orders).values(
            job_id=order.id,
            tenant_id=order.tenant,
            name=order.standing.name,
            schedule=order.standing.schedule,
            ends_at=order.standing.ends_at,
            max_runs=order.standing.max_runs,
        )
    )


def standing_named(connection: Connection, order: Order) -> str | None:
    """The standing order that an order revokes; NOT_FOUND when its tenant has none such."""
    if not isinstance(order.action, RevokeStanding):
        return None
    query = select(standing_orders.c.job_id).where(
        standing_orders.c.job_id == order.action.order_id,
        standing_orders.c.tenant_id == order.tenant,
    )
    found: str | None = connection.scalar(query)
    if found is None:
        raise NotFoundError(
            f"there is no standing order {order.action.order_id[:40]}; `stead order ls` lists them"
        )
    return found


def note_run(
    connection: Connection,
    machine: MachineIdentity,
    task: str,
    run: Run,
    *,
    started_at: datetime | None,
    next_at: datetime | None,
    at: datetime,
) -> str | None:
    """Note that a machine began a run; the job that it belongs to, None when that is known.

    Raises INVALID for a run of an order that did not go to this machine, or beyond its bounds.
    """
    check_id("ts", task)
    parent = _parent(connection, machine, run)
    job = job_of_run(run.order, run.slot)
    _note_job(connection, job, parent, run, at)
    query = select(tasks.c.id).where(tasks.c.job_id == job, tasks.c.machine_id == machine.machine)
    if connection.scalar(query) is not None:
        return None
    if connection.scalar(select(tasks.c.id).where(tasks.c.id == task)) is not None:
        raise InvalidError(f"{task} is the id of another task")
    connection.execute(
        insert(tasks).values(
            id=task,
            job_id=job,
            tenant_id=machine.tenant,
            machine_id=machine.machine,
            state=RUNNING,
            started_at=started_at,
            lease_until=at + SILENCE,
            output_truncated=False,
            output_bytes=0,
        )
    )
    _note_last(connection, machine, task, run, next_at)
    return job


def _parent(connection: Connection, machine: MachineIdentity, run: Run) -> Row[Any]:
    query = (
        select(jobs, standing_orders.c.ends_at, standing_orders.c.max_runs)
        .join(standing_orders, standing_orders.c.job_id == jobs.c.id)
        .join(tasks, tasks.c.job_id == jobs.c.id)
        .where(
            jobs.c.id == run.order,
            jobs.c.tenant_id == machine.tenant,
            tasks.c.machine_id == machine.machine,
        )
    )
    parent = connection.execute(query).one_or_none()
    if parent is None:
        raise InvalidError(f"no standing order {run.order[:40]} went to this machine")
    if run.slot >= parent.ends_at or (parent.max_runs and run.number > parent.max_runs):
        raise InvalidError(f"the standing order {run.order[:40]} has no such run")
    return parent


def _note_job(connection: Connection, job: str, parent: Row[Any], run: Run, at: datetime) -> None:
    known = connection.execute(select(jobs.c.standing_id).where(jobs.c.id == job)).one_or_none()
    if known is not None:
        if known.standing_id != parent.id:
            raise InvalidError(f"{job} is the id of another job")
        return
    connection.execute(
        insert(jobs).values(
            id=job,
            tenant_id=parent.tenant_id,
            action=parent.action,
            envelope=b"",
            operator=parent.operator,
            operator_role=parent.operator_role,
            submitted_at=at,
            not_before=run.slot,
            deliver_by=parent.ends_at,
            timeout_s=parent.timeout_s,
            reason=parent.reason,
            summary=parent.summary,
            standing_id=parent.id,
            slot=run.slot,
        )
    )


def _note_last(
    connection: Connection,
    machine: MachineIdentity,
    task: str,
    run: Run,
    next_at: datetime | None,
) -> None:
    mine = (
        standing_runs.c.job_id == run.order,
        standing_runs.c.machine_id == machine.machine,
    )
    known = connection.execute(select(standing_runs.c.runs).where(*mine)).one_or_none()
    if known is None:
        connection.execute(
            insert(standing_runs).values(
                job_id=run.order,
                machine_id=machine.machine,
                tenant_id=machine.tenant,
                runs=run.number,
                last_task_id=task,
                next_at=next_at,
            )
        )
    elif run.number >= known.runs:
        connection.execute(
            update(standing_runs)
            .where(*mine)
            .values(runs=run.number, last_task_id=task, next_at=next_at)
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which standing orders are to be listed; what is empty leaves nothing out."""

    tenant: str = ""
    order: str = ""
    machine: str = ""
    with_ended: bool = False


def listed(
    connection: Connection, operator: OperatorIdentity, wanted: Wanted, now: datetime
) -> list[StandingView]:
    """Standing orders that an operator may see, newest first, with their machines.

    Without `with_ended` only those are listed that are in force, or may come to be, somewhere.
    Raises NOT_FOUND for an order that is named and not there.
    """
    query = (
        select(
            jobs,
            standing_orders.c.name,
            standing_orders.c.schedule,
            standing_orders.c.ends_at,
            standing_orders.c.max_runs,
        )
        .join(standing_orders, standing_orders.c.job_id == jobs.c.id)
        .order_by(jobs.c.submitted_at.desc(), jobs.c.id.desc())
        .limit(LISTED)
    )
    if operator.tenants is not None:
        query = query.where(jobs.c.tenant_id.in_(sorted(operator.tenants)))
    if wanted.tenant:
        query = query.where(jobs.c.tenant_id == wanted.tenant)
    if wanted.order:
        query = query.where(jobs.c.id == wanted.order)
    elif not wanted.with_ended:
        query = query.where(standing_orders.c.ends_at > now)
    if wanted.machine:
        having = select(tasks.c.job_id).where(tasks.c.machine_id == wanted.machine)
        query = query.where(jobs.c.id.in_(having))
    rows = connection.execute(query).all()
    if wanted.order and not rows:
        raise NotFoundError(
            f"there is no standing order {wanted.order[:40]}; `stead order ls` lists them"
        )
    views = [StandingView(row, _machines(connection, row, wanted.machine, now)) for row in rows]
    if wanted.order or wanted.with_ended:
        return views
    alive = {"sent", "in force", "revoking"}
    return [view for view in views if any(one.state in alive for one in view.machines)]


def _machines(
    connection: Connection, order: Row[Any], only: str, now: datetime
) -> list[MachineView]:
    sent = (
        select(tasks, machines.c.name)
        .join(machines, machines.c.id == tasks.c.machine_id)
        .where(tasks.c.job_id == order.id)
        .order_by(machines.c.name)
    )
    if only:
        sent = sent.where(tasks.c.machine_id == only)
    revoked = _revoked(connection, order.id)
    last = _last_runs(connection, order.id)
    return [
        _view(order, task, revoked.get(task.machine_id, ""), last.get(task.machine_id), now)
        for task in connection.execute(sent)
    ]


def _view(
    order: Row[Any], task: Row[Any], revoked: str, last: Row[Any] | None, now: datetime
) -> MachineView:
    runs = 0 if last is None else last.runs
    state = state_of(
        task.state, revoked, ended=now >= order.ends_at, runs=runs, max_runs=order.max_runs
    )
    taken_in = task.state == OutcomeState.SUCCEEDED
    return MachineView(
        machine=task.machine_id,
        name=task.name,
        state=state,
        message=(task.message or task.code or "") if state == "refused" else "",
        taken_in_at=task.ended_at if taken_in else None,
        runs=runs,
        last_run_at=None if last is None else last.started_at,
        last_state="" if last is None else last.state,
        last_job="" if last is None else last.run_id,
        next_run_at=_next(task, last) if state == "in force" else None,
    )


def _next(task: Row[Any], last: Row[Any] | None) -> datetime | None:
    """When the next slot begins, as the machine said last."""
    if last is not None:
        at: datetime | None = last.next_at
        return at
    return next_in(task.result or b"")


def _revoked(connection: Connection, order: str) -> Mapping[str, str]:
    """By machine: the state of the task that revokes an order, the furthest of several."""
    query = (
        select(tasks.c.machine_id, tasks.c.state)
        .join(jobs, jobs.c.id == tasks.c.job_id)
        .where(jobs.c.standing_id == order, jobs.c.action == _REVOKE)
        .order_by(jobs.c.submitted_at)
    )
    found: dict[str, str] = {}
    for row in connection.execute(query):
        if found.get(row.machine_id) != OutcomeState.SUCCEEDED:
            found[row.machine_id] = row.state
    return found


def _last_runs(connection: Connection, order: str) -> Mapping[str, Row[Any]]:
    query = (
        select(
            standing_runs.c.machine_id,
            standing_runs.c.runs,
            standing_runs.c.next_at,
            tasks.c.state,
            tasks.c.started_at,
            tasks.c.job_id.label("run_id"),
        )
        .join(tasks, tasks.c.id == standing_runs.c.last_task_id)
        .where(standing_runs.c.job_id == order)
    )
    found: dict[str, Any] = {}
    for row in connection.execute(query):
        found[row.machine_id] = row
    return found


def next_in(result: bytes) -> datetime | None:
    """When the first run will be, by what a machine answered when it took an order in."""
    try:
        return msgspec.json.decode(result, type=_TakenIn).next_at
    except (msgspec.DecodeError, RecursionError):
        return None
