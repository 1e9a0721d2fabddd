"""Jobs as operators see them: always inside the tenants of their scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from controller.db.schema import jobs, machines, task_output, tasks
from protocol.errors import NotFoundError
from protocol.identity import OperatorIdentity


def job_row(connection: Connection, operator: OperatorIdentity, job: str) -> Row[Any]:
    """One job; `NotFoundError` when there is none that the operator may see."""
    row = connection.execute(_visible(operator).where(jobs.c.id == job)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job[:40]}; `stead job ls` lists them")
    return row


def job_rows(
    connection: Connection, operator: OperatorIdentity, *, tenant: str, limit: int
) -> Sequence[Row[Any]]:
    """Jobs, newest first."""
    query = _visible(operator).order_by(jobs.c.submitted_at.desc(), jobs.c.id.desc()).limit(limit)
    if tenant:
        query = query.where(jobs.c.tenant_id == tenant)
    return connection.execute(query).all()


def task_rows(connection: Connection, job_ids: Sequence[str]) -> Mapping[str, list[Row[Any]]]:
    """The tasks of these jobs, by job, in the order of their machines' names."""
    found: dict[str, list[Row[Any]]] = {job: [] for job in job_ids}
    query = (
        select(tasks, machines.c.name.label("machine_name"))
        .join(machines, machines.c.id == tasks.c.machine_id)
        .where(tasks.c.job_id.in_(job_ids))
        .order_by(machines.c.name)
    )
    for row in connection.execute(query):
        found[row.job_id].append(row)
    return found


def output_after(
    connection: Connection, task_ids: Sequence[str], seen: Mapping[str, int]
) -> list[Row[Any]]:
    """Pieces of output that come after those seen (the next number per task)."""
    found: list[Row[Any]] = []
    for task in task_ids:
        query = (
            select(task_output)
            .where(task_output.c.task_id == task, task_output.c.seq >= seen.get(task, 0))
            .order_by(task_output.c.seq)
        )
        found.extend(connection.execute(query))
    return found


def _visible(operator: OperatorIdentity) -> Select[Any]:
    query = select(jobs)
    if operator.tenants is not None:
        query = query.where(jobs.c.tenant_id.in_(sorted(operator.tenants)))
    return query
