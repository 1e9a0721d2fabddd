"""Standing orders as operators see them: always inside the tenants of their scope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, and_, case, func, select, tuple_

from controller.db.schema import jobs, machines, standing_orders, standing_runs, tasks
from controller.jobs.reading import job_row
from controller.jobs.state import AT_WORK, OPEN, WAITING
from protocol.action import NAMES, RevokeStanding
from protocol.errors import UNREADABLE, NotFoundError
from protocol.identity import OperatorIdentity
from protocol.outcome import OutcomeState

LISTED = 200
"""Standing orders that are looked at for one page."""

MOST_MACHINES = 20_000
"""How orders stand on so many machines fits into an answer."""

MOST_NAMED = 500
"""Machines by whose ids a database is asked; of more, all of an order's are read."""

ALIVE = frozenset({"sent", "in force", "revoking"})
_REVOKE = NAMES[RevokeStanding]
_REVOKED = ("", "open", "done")


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
    counts: Mapping[str, int]
    machines: Sequence[MachineView] = ()


def state_of(taken: str, revoked: str, *, ended: bool) -> str:
    """How an order stands on a machine, by the state of the task that took it there.

    `revoked` is "done", "open" or empty: how far its revocation there is.

    >>> state_of("succeeded", "", ended=False), state_of("succeeded", "open", ended=False)
    ('in force', 'revoking')
    >>> state_of("cancelled", "done", ended=False), state_of("queued", "", ended=False)
    ('revoked', 'sent')
    """
    if revoked == "done" or taken == OutcomeState.CANCELLED:
        return "revoked"
    if taken == OutcomeState.EXPIRED:
        return "missed"
    if taken not in (*OPEN, OutcomeState.SUCCEEDED, OutcomeState.INDETERMINATE):
        return "refused"
    if ended:
        return "ended"
    if revoked == "open":
        return "revoking"
    return "sent" if taken in OPEN else "in force"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which standing orders are to be listed; what is empty leaves nothing out."""

    tenant: str = ""
    order: str = ""
    machines: tuple[str, ...] = ()
    name: str = ""
    before: str = ""
    with_ended: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Standing orders, and before which one a listing goes on; empty at its end."""

    orders: Sequence[StandingView]
    go_on_before: str = ""


def listed(
    connection: Connection, operator: OperatorIdentity, wanted: Wanted, now: datetime
) -> Page:
    """A page of the standing orders that an operator may see, newest first, with their machines.

    Without `with_ended` only those are listed that are in force, or may come to be, somewhere.
    Raises NOT_FOUND for an order that is named and not there.
    """
    query: Select[Any] = (
        select(
            # Without the envelope, which names every machine.
            *(column for column in jobs.c if column is not jobs.c.envelope),
            standing_orders.c.name,
            standing_orders.c.schedule,
            standing_orders.c.ends_at,
            standing_orders.c.max_runs,
        )
        .join(standing_orders, standing_orders.c.job_id == jobs.c.id)
        # So that those few are looked up, and not every job looked at.
        .where(jobs.c.id.in_(select(standing_orders.c.job_id)))
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
    if wanted.name:
        query = query.where(standing_orders.c.name == wanted.name)
    if wanted.before:
        last = job_row(connection, operator, wanted.before)
        query = query.where(tuple_(jobs.c.submitted_at, jobs.c.id) < (last.submitted_at, last.id))
    if 0 < len(wanted.machines) <= MOST_NAMED:
        having = select(tasks.c.job_id).where(tasks.c.machine_id.in_(wanted.machines))
        query = query.where(jobs.c.id.in_(having))
    rows = connection.execute(query).all()
    if wanted.order and not rows:
        raise NotFoundError(
            f"there is no standing order {wanted.order[:40]}; `stead order ls` lists them"
        )
    found: list[StandingView] = []
    room = MOST_MACHINES
    for row in rows:
        view = _look(connection, row, wanted, now)
        room -= len(view.machines)
        if room < 0 and found:
            return Page(found, found[-1].order.id)
        if _is_listed(view, wanted):
            found.append(view)
    return Page(found, rows[-1].id if len(rows) == LISTED else "")


def _look(connection: Connection, row: Row[Any], wanted: Wanted, now: datetime) -> StandingView:
    each = bool(wanted.order or wanted.machines)
    machines = _machines(connection, row, frozenset(wanted.machines), now) if each else ()
    return StandingView(row, _counts(connection, row, now), machines)


def _is_listed(view: StandingView, wanted: Wanted) -> bool:
    if wanted.machines and not view.machines:
        return False
    return bool(wanted.order or wanted.with_ended or ALIVE & set(view.counts))


def _counts(connection: Connection, order: Row[Any], now: datetime) -> Mapping[str, int]:
    """On how many machines an order stands how; counted where the rows are."""
    revoked = _revocations(order.id).subquery()
    reached = and_(order.max_runs > 0, standing_runs.c.runs >= order.max_runs)
    query = (
        select(
            tasks.c.state,
            revoked.c.rank,
            case((reached, 1), else_=0).label("reached"),
            func.count().label("machines"),
        )
        .outerjoin(revoked, revoked.c.machine_id == tasks.c.machine_id)
        .outerjoin(
            standing_runs,
            and_(
                standing_runs.c.job_id == tasks.c.job_id,
                standing_runs.c.machine_id == tasks.c.machine_id,
            ),
        )
        .where(tasks.c.job_id == order.id)
        .group_by(tasks.c.state, revoked.c.rank, "reached")
    )
    found: Counter[str] = Counter()
    for row in connection.execute(query):
        ended = bool(row.reached) or now >= order.ends_at
        found[state_of(row.state, _REVOKED[row.rank or 0], ended=ended)] += row.machines
    return found


def _revocations(order: str) -> Select[Any]:
    """By machine: how far the furthest task that revokes an order has come; see `_REVOKED`.

    One that somebody has still to sign is not on its way.
    """
    rank = case(
        (tasks.c.state == OutcomeState.SUCCEEDED.value, 2),
        (tasks.c.state.in_((WAITING, *AT_WORK)), 1),
        else_=0,
    )
    return (
        select(tasks.c.machine_id, func.max(rank).label("rank"))
        .join(jobs, jobs.c.id == tasks.c.job_id)
        .where(jobs.c.standing_id == order, jobs.c.action == _REVOKE)
        .group_by(tasks.c.machine_id)
    )


def _machines(
    connection: Connection, order: Row[Any], only: Collection[str], now: datetime
) -> list[MachineView]:
    """How an order stands on its machines, on `only` these where some are named."""
    sent = (
        select(tasks, machines.c.name)
        .join(machines, machines.c.id == tasks.c.machine_id)
        .where(tasks.c.job_id == order.id)
        .order_by(machines.c.name)
    )
    if 0 < len(only) <= MOST_NAMED:
        sent = sent.where(tasks.c.machine_id.in_(only))
    revoked = {
        row.machine_id: _REVOKED[row.rank] for row in connection.execute(_revocations(order.id))
    }
    last = _last_runs(connection, order.id)
    return [
        _view(order, task, revoked.get(task.machine_id, ""), last.get(task.machine_id), now)
        for task in connection.execute(sent)
        if not only or task.machine_id in only
    ]


def _view(
    order: Row[Any], task: Row[Any], revoked: str, last: Row[Any] | None, now: datetime
) -> MachineView:
    runs = 0 if last is None else last.runs
    ended = now >= order.ends_at or bool(order.max_runs and runs >= order.max_runs)
    state = state_of(task.state, revoked, ended=ended)
    taken_in = task.state == OutcomeState.SUCCEEDED
    return MachineView(
        machine=task.machine_id,
        name=task.name,
        state=state,
        message=(task.message or task.code or "") if state in {"refused", "missed"} else "",
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
    except UNREADABLE:
        return None
