"""Standing orders as the controller takes them in: handed to machines, run, revoked.

Machines run them by themselves and say so; a run becomes a job that belongs to the order,
with a task for each machine that made it. Every function is an act inside one database
transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from controller.audit.log import append
from controller.db.schema import jobs, standing_orders, standing_runs, tasks
from controller.jobs.state import RUNNING, SILENCE
from protocol.action import RevokeStanding
from protocol.errors import InvalidError, NotFoundError
from protocol.identity import MachineIdentity
from protocol.ids import check_id
from protocol.order import Order
from protocol.standing import MOST_RUNS, Run, job_of_run


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
    most = parent.max_runs or MOST_RUNS
    if run.slot >= parent.ends_at or run.number > most:
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
    append(
        connection,
        parent.tenant_id,
        actor="controller",
        event="standing_run_told",
        body={"order": job, "standing_order": parent.id, "slot": run.slot.isoformat()},
        at=at,
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
