"""Forget runs of standing orders that were long ago: what runs every minute has no end otherwise.

Kept are the runs of the last 30 days, the newest run of each machine, and whatever is not
over. The audit log keeps its entries of all of them. An act inside one database transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from controller.db.schema import jobs, standing_orders, standing_runs, task_output, tasks
from controller.jobs.state import OPEN

KEPT = timedelta(days=30)
AT_ONCE = 50
"""Jobs that are forgotten in one transaction, with all of their tasks and output."""


def forget(connection: Connection, now: datetime) -> int:
    """Forget some runs; how many, 0 once there is nothing left to forget."""
    gone: list[str] = []
    for order in connection.scalars(select(standing_orders.c.job_id)).all():
        needed = (
            select(tasks.c.job_id)
            .join(standing_runs, standing_runs.c.last_task_id == tasks.c.id)
            .where(standing_runs.c.job_id == order)
        )
        under_way = select(tasks.c.id).where(tasks.c.job_id == jobs.c.id, tasks.c.state.in_(OPEN))
        old = (
            select(jobs.c.id)
            .where(
                jobs.c.standing_id == order,
                jobs.c.slot < now - KEPT,
                jobs.c.id.not_in(needed),
                ~under_way.exists(),
            )
            .limit(AT_ONCE - len(gone))
        )
        gone += connection.scalars(old)
        if len(gone) >= AT_ONCE:
            break
    if gone:
        of_them = select(tasks.c.id).where(tasks.c.job_id.in_(gone))
        connection.execute(delete(task_output).where(task_output.c.task_id.in_(of_them)))
        connection.execute(delete(tasks).where(tasks.c.job_id.in_(gone)))
        connection.execute(delete(jobs).where(jobs.c.id.in_(gone)))
    return len(gone)
