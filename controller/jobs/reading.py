"""Jobs as operators see them: always inside the tenants of their scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, select, tuple_

from controller.db.schema import jobs, machines, task_output, tasks
from controller.jobs.state import OPEN
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import OperatorIdentity
from protocol.outcome import OutcomeState

MAX_LISTED = 100_000
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Below what a message may have, with room for all else that stands in it."""


def _tasks(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns, machines.c.name.label("machine_name"))
        .join(machines, machines.c.id == tasks.c.machine_id)
        .where(tasks.c.job_id.in_(bindparam("jobs", expanding=True)))
        .order_by(machines.c.name)
    )


# Built once: whoever watches a job runs them for every piece of its output.
_TASKS_WITH_RESULTS = _tasks(*tasks.c)
_TASKS = _tasks(*(column for column in tasks.c if column is not tasks.c.result))
_OUTPUT = (
    select(task_output)
    .where(task_output.c.task_id == bindparam("task"), task_output.c.seq >= bindparam("seen"))
    .order_by(task_output.c.seq)
)
_SOME_OUTPUT = _OUTPUT.limit(bindparam("limit"))


def job_row(connection: Connection, operator: OperatorIdentity, job: str) -> Row[Any]:
    """One job; `NotFoundError` when there is none that the operator may see."""
    row = connection.execute(_visible(operator).where(jobs.c.id == job)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job[:40]}; `stead job ls` lists them")
    return row


def envelope_of(connection: Connection, job: Row[Any]) -> bytes:
    """The signed order behind a job; behind a run that is the standing order."""
    if job.slot is None:
        return bytes(job.envelope)
    query = select(jobs.c.envelope).where(jobs.c.id == job.standing_id)
    return bytes(connection.scalar(query) or b"")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs are to be listed; what is empty or None leaves nothing out.

    `state` is that of a task, of the machine if one is named. `before` is the id of a job:
    older ones are listed. Runs of standing orders are left out unless `with_runs` says so, or
    `standing`, which names the order.
    """

    tenant: str = ""
    machine: str = ""
    state: str = ""
    operator: str = ""
    since: datetime | None = None
    before: str = ""
    standing: str = ""
    with_runs: bool = False


def job_rows(
    connection: Connection, operator: OperatorIdentity, wanted: Wanted, *, limit: int
) -> Sequence[Row[Any]]:
    """Jobs, newest first: at least one, and no more than `MAX_LISTED` tasks belong to.

    Raises `InvalidError` for a state that no task has, NOT_FOUND for `before`.
    """
    query = _visible(operator).order_by(jobs.c.submitted_at.desc(), jobs.c.id.desc()).limit(limit)
    query = query.where(*_conditions(connection, operator, wanted))
    rows = connection.execute(query).all()
    counting = (
        select(tasks.c.job_id, func.count().label("tasks"))
        .where(tasks.c.job_id.in_([row.id for row in rows]))
        .group_by(tasks.c.job_id)
    )
    counts: dict[str, int] = {
        counted.job_id: counted.tasks for counted in connection.execute(counting)
    }
    listed = 0
    for place, row in enumerate(rows):
        listed += counts.get(row.id, 0)
        if place and listed > MAX_LISTED:
            return rows[:place]
    return rows


def _conditions(
    connection: Connection, operator: OperatorIdentity, wanted: Wanted
) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.tenant:
        found.append(jobs.c.tenant_id == wanted.tenant)
    if wanted.operator:
        found.append(jobs.c.operator == wanted.operator)
    if wanted.standing:
        found += [jobs.c.standing_id == wanted.standing, jobs.c.slot.is_not(None)]
    elif not wanted.with_runs:
        found.append(jobs.c.slot.is_(None))
    if wanted.since is not None:
        found.append(jobs.c.submitted_at >= wanted.since)
    if wanted.state and wanted.state not in (*OPEN, *OutcomeState):
        raise InvalidError(
            f"{wanted.state[:40]!r} is no state of a task; there are: "
            f"{', '.join((*OPEN, *OutcomeState))}"
        )
    if wanted.machine or wanted.state:
        having = select(tasks.c.job_id)
        if wanted.machine:
            having = having.where(tasks.c.machine_id == wanted.machine)
        if wanted.state:
            having = having.where(tasks.c.state == wanted.state)
        found.append(jobs.c.id.in_(having))
    if wanted.before:
        last = job_row(connection, operator, wanted.before)
        found.append(tuple_(jobs.c.submitted_at, jobs.c.id) < (last.submitted_at, last.id))
    return found


def check_size(connection: Connection, job: str, *, with_output: bool) -> None:
    """Raise LIMIT when a job's results, and its output, do not fit into one answer."""
    size: ColumnElement[Any] = func.coalesce(func.length(tasks.c.result), 0)
    if with_output:
        size = size + tasks.c.output_bytes
    query = select(func.sum(size)).where(tasks.c.job_id == job)
    total = connection.scalar(query) or 0
    if total > MAX_ANSWER_BYTES:
        raise SteadError(
            f"what the tasks of {job} gave back is {total} bytes, too much for one answer; "
            f"`stead job watch {job}` reads it piece by piece",
            code=Code.LIMIT,
        )


def result_of(connection: Connection, task: str) -> bytes:
    """A task's result."""
    return connection.scalar(select(tasks.c.result).where(tasks.c.id == task)) or b""


def task_rows(
    connection: Connection, job_ids: Sequence[str], *, with_results: bool
) -> Mapping[str, list[Row[Any]]]:
    """The tasks of these jobs, by job, in the order of their machines' names."""
    found: dict[str, list[Row[Any]]] = {job: [] for job in job_ids}
    query = _TASKS_WITH_RESULTS if with_results else _TASKS
    for row in connection.execute(query, {"jobs": job_ids}):
        found[row.job_id].append(row)
    return found


def output_after(
    connection: Connection, task: str, seen: int = 0, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Up to `limit` pieces of a task's output, from number `seen` on."""
    wanted = {"task": task, "seen": seen}
    if limit is None:
        return connection.execute(_OUTPUT, wanted).all()
    return connection.execute(_SOME_OUTPUT, {**wanted, "limit": limit}).all()


def _visible(operator: OperatorIdentity) -> Select[Any]:
    query = select(jobs)
    if operator.tenants is not None:
        query = query.where(jobs.c.tenant_id.in_(sorted(operator.tenants)))
    return query
