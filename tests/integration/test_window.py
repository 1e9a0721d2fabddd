"""Maintenance windows on a real agent, in a zone that is neither the controller's nor UTC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import grpc
import pytest

from controller import clock
from protocol.action import RunProgram
from protocol.errors import Code
from tests.integration.agent_process import AgentProcess, ended_job, order_to, token_text
from tests.integration.conftest import Installation
from tests.integration.test_link import code_of, enveloped, submit

ZONE = ZoneInfo("Asia/Kolkata")
ACTION = RunProgram(("true",))


@pytest.fixture
async def agent(installation: Installation, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """An enrolled agent in Kolkata that is connected."""
    running = AgentProcess(tmp_path / "machine")
    tenant = await installation.add_tenant()
    await running.enroll(await token_text(installation, tenant))
    await running.start(env={"TZ": ZONE.key})
    await running.until_status(link="connected")
    yield running
    await running.stop()


def around(at: datetime) -> str:
    """The hour before and the hour after a time on the wall."""
    hour = timedelta(hours=1)
    return f"{at - hour:%H:%M}-{at + hour:%H:%M}"


async def test_an_order_starts_within_its_window_by_the_clock_on_the_machines_wall(
    installation: Installation, agent: AgentProcess
) -> None:
    now = clock.now()
    here, elsewhere = around(now.astimezone(ZONE)), around(now)
    ended = {}
    for windows, catch_up in (((here,), False), ((elsewhere,), False), ((elsewhere,), True)):
        order = order_to(agent, ACTION, windows=windows, catch_up=catch_up)
        job = await submit(installation, enveloped(installation, order))
        [task] = (await ended_job(installation, job.job_id)).job.tasks
        ended[windows, catch_up] = task
    assert ended[(here,), False].state == "succeeded"
    late = ended[(elsewhere,), False]
    assert (late.state, late.code) == ("expired", "expired")
    assert f"none of its windows ({elsewhere}) opens" in late.message
    assert ended[(elsewhere,), True].state == "succeeded"


async def test_an_order_whose_window_cannot_be_read_is_refused(
    installation: Installation, agent: AgentProcess
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await submit(
            installation, enveloped(installation, order_to(agent, ACTION, windows=("never",)))
        )
    assert code_of(refused.value) is Code.INVALID
