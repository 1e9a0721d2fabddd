"""A script on a real agent: what its administrator denies, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.action import RunScript
from tests.integration.agent_process import AgentProcess, ended_job, linked_agent
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, order_for, submit

__all__ = ["linked_agent"]


async def submitted(installation: Installation, agent: AgentProcess, body: bytes) -> str:
    identity = agent.identity
    order = order_for(identity.tenant, action=RunScript("sh", body))
    order = replace(order, machines=(identity.machine,))
    return (await submit(installation, enveloped(installation, order))).job_id


async def test_the_script_of_a_killed_agent_is_ended_and_removed_by_the_next(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    job = await submitted(installation, agent, f"touch {begun}; exec sleep 600".encode())
    async with asyncio.timeout(30):
        while not begun.exists():
            await asyncio.sleep(0.02)
    [path] = agent.home.scripts.iterdir()
    await agent.stop(signal.SIGKILL)
    assert path.exists()
    await agent.start()
    [task] = (await ended_job(installation, job)).job.tasks
    assert task.state == "indeterminate"
    assert not path.exists()


@pytest.mark.parametrize("denied", ["run_script", "run_program"])
async def test_who_denies_programs_denies_scripts_as_well(
    installation: Installation, agent: AgentProcess, tmp_path: Path, denied: str
) -> None:
    settings, made = agent.home.settings, tmp_path / "made"
    settings.write_text(settings.read_text().replace("deny = []", f'deny = ["{denied}"]'))
    job = await submitted(installation, agent, f"touch {made}".encode())
    [task] = (await ended_job(installation, job)).job.tasks
    assert (task.state, task.code) == ("rejected", "denied")
    assert not made.exists()
