"""How many there are of what an operator may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, distinct, func, select

from controller.db.schema import audit_alarms, machines, tasks, tenants
from controller.db.unindexed import unindexed
from controller.fleet.scope import visible
from controller.jobs.state import OPEN
from protocol.identity import OperatorIdentity
from protocol.ids import MachineId


@dataclass(frozen=True, slots=True)
class Census:
    """The tenants' names by id, the machines by id, how many jobs are not over, and how many
    machines find something wrong with the audit logs.
    """

    tenants: Mapping[str, str]
    machines: tuple[MachineId, ...]
    open_jobs: int
    alarmed: int


def take_census(connection: Connection, operator: OperatorIdentity) -> Census:
    """Count what is in the operator's scope."""
    found = connection.scalars(select(machines.c.id).where(visible(machines.c.tenant_id, operator)))
    open_jobs = connection.scalar(
        select(func.count(distinct(tasks.c.job_id))).where(
            tasks.c.state.in_(OPEN), visible(unindexed(tasks.c.tenant_id), operator)
        )
    )
    alarmed = connection.scalar(
        select(func.count(distinct(audit_alarms.c.machine_id))).where(
            visible(audit_alarms.c.tenant_id, operator)
        )
    )
    named = connection.execute(
        select(tenants.c.id, tenants.c.name).where(visible(tenants.c.id, operator))
    )
    return Census(
        {row.id: row.name for row in named},
        tuple(MachineId(machine) for machine in found),
        open_jobs or 0,
        alarmed or 0,
    )
