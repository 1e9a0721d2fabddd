"""What an ordered program may take, and that nothing of it outlives its end."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from agent.host.group import group_of
from protocol.action import CancelOrder, RunProgram
from protocol.limits import Limits
from tests.integration.agent_process import (
    AgentProcess,
    ended_job,
    linked_agent,
    order_to,
    printed,
)
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, submit
from tests.unit.agent.test_process import ESCAPE, lives, said

__all__ = ["linked_agent"]

MIB = 1024 * 1024


@pytest.mark.skipif(group_of("try") is None, reason="not run: no control groups to be made here")
@pytest.mark.parametrize("end", ["timed_out", "cancelled"])
async def test_a_daemon_that_cleared_its_environment_and_has_no_parent_ends_with_its_task(
    installation: Installation, agent: AgentProcess, tmp_path: Path, end: str
) -> None:
    told = tmp_path / "pid"
    limit = timedelta(seconds=3 if end == "timed_out" else 600)
    argv = ("sh", "-c", '"$@"; sleep 600', "sh", sys.executable, "-c", ESCAPE, str(told))
    order = order_to(agent, RunProgram(argv), timeout=limit)
    job = await submit(installation, enveloped(installation, order))
    escaped = await said(told)
    assert "STEAD_TASK" not in psutil.Process(escaped).environ()
    if end == "cancelled":
        cancel = order_to(agent, CancelOrder(order.id))
        await submit(installation, enveloped(installation, cancel))
    answer = await ended_job(installation, job.job_id)
    assert answer.job.tasks[0].state == end
    assert not lives(escaped)


async def test_limits_hold_and_what_could_not_be_enforced_is_in_the_outcome(
    installation: Installation, agent: AgentProcess
) -> None:
    script = "import os; print(os.nice(0), flush=True); len(bytearray(400 * 1024 * 1024))"
    limits = Limits(memory_bytes=200 * MIB, cpu_percent=80, nice=9)
    action = RunProgram((sys.executable, "-c", script), limits=limits)
    job = await submit(installation, enveloped(installation, order_to(agent, action)))
    answer = await ended_job(installation, job.job_id)
    [task] = answer.job.tasks
    assert task.state == "failed"
    # Never nicer to the program than to whoever runs the tests.
    assert int(printed(answer)) == max(9, os.nice(0))
    [groups] = [one for one in agent.events() if one["event"] == "control_groups"]
    limited = set(groups["controllers"])
    assert ("each process alone" in task.message) is ("memory" not in limited)
    assert ("the processor was not limited" in task.message) is ("cpu" not in limited)
    if "memory" not in limited:
        assert b"MemoryError" in printed(answer, stream=2)
    else:
        assert "taking more than 209715200 bytes" in task.message


async def test_limits_that_are_none_are_refused_by_the_machine(
    installation: Installation, agent: AgentProcess
) -> None:
    action = RunProgram(("true",), limits=Limits(nice=20))
    job = await submit(installation, enveloped(installation, order_to(agent, action)))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert (task.state, task.code) == ("failed", "invalid")


async def test_a_program_that_prints_without_end_costs_the_agent_no_memory(
    installation: Installation, agent: AgentProcess
) -> None:
    process = psutil.Process((await agent.until_status(link="connected"))["process"])
    before = process.memory_info().rss
    script = "import os\nblock = os.urandom(1 << 20)\nwhile True: os.write(1, block)"
    order = order_to(
        agent, RunProgram((sys.executable, "-c", script)), timeout=timedelta(seconds=4)
    )
    job = await submit(installation, enveloped(installation, order))
    most = before
    ended = asyncio.ensure_future(ended_job(installation, job.job_id))
    while not ended.done():
        most = max(most, process.memory_info().rss)
        await asyncio.sleep(0.05)
    [task] = ended.result().job.tasks
    assert task.state == "timed_out"
    assert task.output_truncated
    # What is kept is in a file (8 MiB of it at most); in memory there are a few pieces.
    assert most - before < 24 * MIB, f"{(most - before) / MIB:.0f} MiB"
