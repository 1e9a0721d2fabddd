"""A restart, as far as it goes without one: what the next agent reports, and a cancel.

Nothing here comes to the time of its restart: that is a week away.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from datetime import timedelta

import pytest

from agent.actions.power import MOST_DELAY_S
from agent.host.boot import boot_id
from agent.power.record import Phase, Record, keep_record, load_record
from protocol.action import CancelOrder, ControlPower
from protocol.ids import TaskId
from protocol.order import Order
from protocol.v1 import job_pb2
from tests.integration.agent_process import AgentProcess, ended_job, linked_agent
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, order_for, submit

__all__ = ["linked_agent"]

NEVER = ControlPower("reboot", "nobody is told", MOST_DELAY_S)


async def waiting(installation: Installation, agent: AgentProcess) -> tuple[Order, job_pb2.Job]:
    """An order to restart that waits for its time."""
    identity = agent.identity
    order = order_for(identity.tenant, action=NEVER)
    order = replace(order, machines=(identity.machine,), timeout=timedelta(days=8))
    job = await submit(installation, enveloped(installation, order))
    async with asyncio.timeout(30):
        while load_record(agent.home, TaskId(job.tasks[0].task_id)) is None:
            await asyncio.sleep(0.02)
    return order, job


@pytest.mark.parametrize(
    ("phase", "boot", "state"),
    [
        (Phase.ORDERED, "another-boot", "succeeded"),
        (Phase.ORDERED, boot_id(), "failed"),
        (Phase.WAITING, boot_id(), "failed"),
    ],
)
async def test_the_next_agent_reports_what_became_of_a_restart(
    installation: Installation, agent: AgentProcess, phase: Phase, boot: str, state: str
) -> None:
    _, job = await waiting(installation, agent)
    await agent.stop(signal.SIGKILL)
    keep_record(agent.home, TaskId(job.tasks[0].task_id), Record("reboot", boot, phase))
    await agent.start()
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == state, task.message
    assert list(agent.home.power.iterdir()) == []


async def test_a_restart_that_waits_is_cancelled(
    installation: Installation, agent: AgentProcess
) -> None:
    order, job = await waiting(installation, agent)
    cancel = replace(order_for(order.tenant, action=CancelOrder(order.id)), machines=order.machines)
    await submit(installation, enveloped(installation, cancel))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "cancelled"


async def test_an_agent_that_stops_does_not_wait_for_the_restart_that_ends_it(
    installation: Installation, agent: AgentProcess
) -> None:
    _, job = await waiting(installation, agent)
    began = asyncio.get_running_loop().time()
    await agent.stop()
    # It gives other tasks 20 s to end.
    assert asyncio.get_running_loop().time() - began < 15
    await agent.start()
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert "stopped before the time came" in task.message
