"""How many there are of what an operator may see."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, distinct, func, select

from controller.db.schema import machines, tasks
from controller.fleet.scope import visible
from controller.jobs.state import OPEN
from protocol.identity import OperatorIdentity
from protocol.ids import MachineId


@dataclass(frozen=True, slots=True)
class Census:
    """The machines by id, and how many jobs are not over."""

    machines: tuple[MachineId, ...]
    open_jobs: int


def take_census(connection: Connection, operator: OperatorIdentity) -> Census:
    """Count what is in the operator's scope."""
    found = connection.scalars(select(machines.c.id).where(visible(machines.c.tenant_id, operator)))
    open_jobs = connection.scalar(
        select(func.count(distinct(tasks.c.job_id))).where(
            tasks.c.state.in_(OPEN), visible(tasks.c.tenant_id, operator)
        )
    )
    return Census(tuple(MachineId(machine) for machine in found), open_jobs or 0)
