"""Jobs as operators see them: always inside the tenants of their scope."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, select, tuple_

from controller.db.schema import jobs, machines, rollouts, task_output, tasks
from controller.jobs.state import OPEN
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import OperatorIdentity
from protocol.outcome import OutcomeState

MAX_LISTED = 100_000
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Below what a message may have, with room for all else that stands in it."""

_PART = 500
"""Of a job with more tasks than that, all are read at once."""


def _tasks(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns, machines.c.name.label("machine_name"))
        .join(machines, machines.c.id == tasks.c.machine_id)
        .where(tasks.c.job_id.in_(bindparam("jobs", expanding=True)))
        .order_by(machines.c.name)
    )


_LISTED = tuple(column for column in jobs.c if column is not jobs.c.envelope)

# Built once: whoever watches a job runs them for every piece of its output.
_TASKS_WITH_RESULTS = _tasks(*tasks.c)
_TASKS = _tasks(
    *(column for column in tasks.c if column is not tasks.c.result),
    func.coalesce(func.length(tasks.c.result), 0).label("result_bytes"),
)
_OUTPUT = (
    select(task_output)
    .where(task_output.c.task_id == bindparam("task"), task_output.c.seq >= bindparam("seen"))
    .order_by(task_output.c.seq)
)
_MARKS: Select[Any] = select(tasks.c.id, tasks.c.state, tasks.c.output_bytes).where(
    tasks.c.job_id == bindparam("job")
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
    action: str = ""
    with_runs: bool = False


def job_rows(
    connection: Connection, operator: OperatorIdentity, wanted: Wanted, *, limit: int
) -> Sequence[Row[Any]]:
    """Jobs, newest first, without their envelopes, which name every machine.

    Raises `InvalidError` for a state that no task has, NOT_FOUND for `before`.
    """
    query = _visible(operator, *_LISTED).where(*_conditions(connection, operator, wanted))
    newest = query.order_by(jobs.c.submitted_at.desc(), jobs.c.id.desc())
    return connection.execute(newest.limit(limit)).all()


def states_of(connection: Connection, job_ids: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
    """How many tasks of each job are in which state."""
    query = (
        select(tasks.c.job_id, tasks.c.state, func.count().label("tasks"))
        .where(tasks.c.job_id.in_(job_ids))
        .group_by(tasks.c.job_id, tasks.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(query):
        found.setdefault(row.job_id, {})[row.state] = row.tasks
    return found


def as_many_as_fit(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """The first jobs of these: at least one, and no more than `MAX_LISTED` tasks belong to."""
    counts = states_of(connection, job_ids)
    found: list[str] = []
    listed = 0
    for job in job_ids:
        listed += sum(counts.get(job, {}).values())
        if found and listed > MAX_LISTED:
            break
        found.append(job)
    return found


def _conditions(
    connection: Connection, operator: OperatorIdentity, wanted: Wanted
) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.tenant:
        found.append(jobs.c.tenant_id == wanted.tenant)
    if wanted.operator:
        found.append(jobs.c.operator == wanted.operator)
    if wanted.action:
        found.append(jobs.c.action == wanted.action)
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


def check_size(
    connection: Connection, job: str, machine: str, *, with_results: bool, with_output: bool
) -> None:
    """Raise LIMIT when a job's results, or its output, do not fit into one answer."""
    results = func.coalesce(func.sum(func.length(tasks.c.result)), 0)
    query = select(results, func.sum(tasks.c.output_bytes)).where(tasks.c.job_id == job)
    if machine:
        query = query.where(tasks.c.machine_id == machine)
    found, printed = connection.execute(query).one()
    total = found * with_results + (printed or 0) * with_output
    if total > MAX_ANSWER_BYTES:
        raise SteadError(
            f"what the tasks of {job} gave back is {total} bytes, too much for one answer; "
            f"`stead job watch {job}` reads it piece by piece",
            code=Code.LIMIT,
        )


def results_of(connection: Connection, task_ids: Sequence[str]) -> Mapping[str, bytes]:
    """The results of these tasks, by task."""
    query = select(tasks.c.id, tasks.c.result).where(tasks.c.id.in_(task_ids))
    return {row.id: row.result or b"" for row in connection.execute(query)}


def marks_of(connection: Connection, job: str) -> Sequence[Row[Any]]:
    """A job's tasks in the few words that change while they are at work."""
    return connection.execute(_MARKS, {"job": job}).all()


def tasks_named(connection: Connection, job: str, ids: Collection[str]) -> Sequence[Row[Any]]:
    """Those tasks of a job, without their results, in the order of their machines' names."""
    if len(ids) > _PART:
        rows, wanted = task_rows(connection, [job], with_results=False)[job], set(ids)
        return [row for row in rows if row.id in wanted]
    return connection.execute(_TASKS.where(tasks.c.id.in_(ids)), {"jobs": [job]}).all()


def task_rows(
    connection: Connection, job_ids: Sequence[str], machine: str = "", *, with_results: bool
) -> Mapping[str, list[Row[Any]]]:
    """The tasks of these jobs, by job, in the order of their machines' names.

    Where a machine is named, its tasks alone.
    """
    query = _TASKS_WITH_RESULTS if with_results else _TASKS
    if machine:
        query = query.where(tasks.c.machine_id == machine)
    found: dict[str, list[Row[Any]]] = {job: [] for job in job_ids}
    for row in connection.execute(query, {"jobs": job_ids}):
        found[row.job_id].append(row)
    return found


def tasks_of_machine(
    connection: Connection, job_ids: Sequence[str], machine: str
) -> Mapping[str, list[Row[Any]]]:
    """One machine's tasks of these jobs, by job; none of an unnamed machine."""
    if not machine:
        return {job: [] for job in job_ids}
    return task_rows(connection, job_ids, machine, with_results=False)


def rollout_rows(connection: Connection, job_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """The rollouts of those jobs that have one, with the signed orders, which hold the terms."""
    query = (
        select(rollouts, jobs.c.envelope)
        .join(jobs, jobs.c.id == rollouts.c.job_id)
        .where(rollouts.c.job_id.in_(job_ids))
    )
    return connection.execute(query).all()


def output_after(
    connection: Connection, task: str, seen: int = 0, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Up to `limit` pieces of a task's output, from number `seen` on."""
    wanted = {"task": task, "seen": seen}
    if limit is None:
        return connection.execute(_OUTPUT, wanted).all()
    return connection.execute(_SOME_OUTPUT, {**wanted, "limit": limit}).all()


def _visible(operator: OperatorIdentity, *columns: ColumnElement[Any]) -> Select[Any]:
    query = select(*(columns or jobs.c))
    if operator.tenants is not None:
        query = query.where(jobs.c.tenant_id.in_(sorted(operator.tenants)))
    return query
