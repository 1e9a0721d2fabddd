"""Act on what rollouts decide: written down, and audited, before anybody is told.

Every function is an act inside one database transaction. The terms are read from the
order itself, so they are what the operator signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Exists, Row, and_, bindparam, not_, select, update

from controller.audit.log import append
from controller.db.schema import jobs, machines, rollouts, tasks
from controller.jobs.approval import course_values
from controller.jobs.rollout import Course, Decision, Phase, Standing, decide, resumed
from controller.jobs.state import QUEUED, WAITING
from protocol.codec import decode_envelope, decode_order
from protocol.errors import Code, SteadError
from protocol.order import Order
from protocol.rollout import Rollout

Linked = Callable[[str], bool]
_PART = 500


@dataclass(frozen=True, slots=True)
class Terms:
    """What an order says of its rollout, and the place of each of its machines."""

    job: str
    tenant: str
    rollout: Rollout
    places: dict[str, int]


def _has(state: str) -> Exists:
    mine = and_(tasks.c.job_id == rollouts.c.job_id, tasks.c.state == state)
    return select(tasks.c.id).where(mine).exists()


# A halted one whose tasks wait is an operator's to decide on, however long that takes, and
# is not to cost anything meanwhile.
_LEFT_TO_AN_OPERATOR = and_(
    rollouts.c.phase == Phase.HALTED.value, _has(WAITING), not_(_has(QUEUED))
)
_UNDER_WAY = select(rollouts.c.job_id, rollouts.c.soaked_at).where(
    rollouts.c.phase != Phase.OVER.value, not_(_LEFT_TO_AN_OPERATOR)
)


def under_way(connection: Connection) -> dict[str, datetime | None]:
    """The jobs on whose rollouts there is something to decide, and when the pause of each ends."""
    return {row.job_id: row.soaked_at for row in connection.execute(_UNDER_WAY)}


def terms_of(connection: Connection, job: str) -> Terms:
    """The terms of a job's rollout; PRECONDITION for a job without one, as a run has none."""
    if course_row(connection, job) is None:
        raise SteadError(f"the job {job} has no batches", code=Code.PRECONDITION)
    envelope = connection.scalar(select(jobs.c.envelope).where(jobs.c.id == job))
    order = order_in(envelope)
    assert order.rollout is not None
    places = {str(machine): place for place, machine in enumerate(order.machines)}
    return Terms(order.id, order.tenant, order.rollout, places)


def order_in(envelope: bytes | None) -> Order:
    """The order in a job's envelope."""
    assert envelope is not None
    return decode_order(decode_envelope(envelope).order)


def course_of(row: Row[Any]) -> Course:
    """The course in a row of `rollouts`."""
    return Course(row.batch, Phase(row.phase), row.soaked_at, row.forgiven, row.reason)


_COURSE = select(rollouts).where(rollouts.c.job_id == bindparam("job"))


def course_row(connection: Connection, job: str) -> Row[Any] | None:
    """How a job's rollout stands; None for a job without one."""
    return connection.execute(_COURSE, {"job": job}).one_or_none()


def look(connection: Connection, terms: Terms, linked: Linked, now: datetime) -> Decision | None:
    """What is to be done for a job now; None when that is nothing."""
    course, standings = _standing(connection, terms, linked)
    decision = decide(terms.rollout, course, standings, now)
    return None if decision == Decision(course) else decision


def advance(connection: Connection, terms: Terms, linked: Linked, now: datetime) -> Sequence[str]:
    """Do for a job what is to be done now; the machines whose tasks were released."""
    before, standings = _standing(connection, terms, linked)
    decision = decide(terms.rollout, before, standings, now)
    _set_state(connection, decision.recall, QUEUED, WAITING)
    _set_state(connection, decision.release, WAITING, QUEUED)
    _keep(connection, terms.job, decision.course)
    _audit(connection, terms, before, decision, now)
    released: list[str] = []
    for part in _parts(decision.release):
        released += connection.scalars(select(tasks.c.machine_id).where(tasks.c.id.in_(part)))
    return released


def resume(connection: Connection, terms: Terms, actor: str, now: datetime) -> None:
    """Let a halted rollout go on; PRECONDITION when it is not halted."""
    row = course_row(connection, terms.job)
    assert row is not None
    if row.phase != Phase.HALTED.value:
        raise SteadError(
            f"the rollout of {terms.job} is {row.phase}, not halted", code=Code.PRECONDITION
        )
    course, standings = _standing(connection, terms, lambda _: False)
    after = resumed(course, standings)
    _keep(connection, terms.job, after)
    append(
        connection,
        terms.tenant,
        actor=f"operator/{actor}",
        event="rollout_resumed",
        body={"order": terms.job, "forgiven": after.forgiven, "halted": course.reason},
        at=now,
    )


def _standing(
    connection: Connection, terms: Terms, linked: Linked
) -> tuple[Course, list[Standing]]:
    row = course_row(connection, terms.job)
    assert row is not None
    query = (
        select(tasks.c.id, tasks.c.machine_id, tasks.c.state, machines.c.name)
        .join(machines, machines.c.id == tasks.c.machine_id)
        .where(tasks.c.job_id == terms.job)
    )
    found = sorted(connection.execute(query), key=lambda task: terms.places[task.machine_id])
    return course_of(row), [
        Standing(task.id, task.state, linked(task.machine_id), task.name) for task in found
    ]


def _keep(connection: Connection, job: str, course: Course) -> None:
    connection.execute(
        update(rollouts).where(rollouts.c.job_id == job).values(**course_values(course))
    )


def _set_state(connection: Connection, ids: Sequence[str], before: str, after: str) -> None:
    for part in _parts(ids):
        connection.execute(
            update(tasks).where(tasks.c.id.in_(part), tasks.c.state == before).values(state=after)
        )


def _parts(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _PART] for start in range(0, len(ids), _PART)]


def _audit(
    connection: Connection, terms: Terms, before: Course, decision: Decision, now: datetime
) -> None:
    """Note what a rollout came to; that a machine gave its place back is no event."""
    after = decision.course
    body = {"order": terms.job, "batch": after.batch + 1, "of": len(terms.rollout.batches)}
    if after.phase is Phase.HALTED and before.phase is not Phase.HALTED:
        event, more = "rollout_halted", {"reason": after.reason}
    elif after.phase is Phase.OVER and before.phase is not Phase.OVER:
        event, more = "rollout_over", {}
    elif after.batch != before.batch or not before.reason:
        event, more = "rollout_batch_begun", {}
    else:
        return
    append(
        connection,
        terms.tenant,
        actor="controller",
        event=event,
        body={**body, **more},
        at=now,
    )
