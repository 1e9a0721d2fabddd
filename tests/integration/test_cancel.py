"""An operator cancels what runs on a machine, by an order that the machine verifies."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from protocol.action import Action, CancelOrder, RunBackup, RunProgram
from protocol.selection import Commands
from protocol.v1 import job_pb2
from tests.integration.agent_process import (
    WAIT_S,
    AgentProcess,
    ended_job,
    linked_agent,
    order_to,
)
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, job_of, submit

__all__ = ["linked_agent"]

SOON_MS = 10_000
"""Much less than what is cancelled would go on for."""


async def begin(installation: Installation, agent: AgentProcess, action: Action) -> str:
    """Order it, and wait until it runs."""
    job = await submit(installation, enveloped(installation, order_to(agent, action)))
    async with asyncio.timeout(WAIT_S):
        while (await job_of(installation, job.job_id)).job.tasks[0].state != "running":
            await asyncio.sleep(0.05)
    return str(job.job_id)


async def ended(
    installation: Installation, agent: AgentProcess, order: str
) -> tuple[job_pb2.Task, job_pb2.Task]:
    """Cancel it: its task, and that of the cancel."""
    cancel = await submit(
        installation, enveloped(installation, order_to(agent, CancelOrder(order)))
    )
    [of_cancel] = (await ended_job(installation, cancel.job_id)).job.tasks
    [of_order] = (await ended_job(installation, order)).job.tasks
    return of_order, of_cancel


async def test_a_program_that_runs_is_ended_with_what_it_started(
    installation: Installation, agent: AgentProcess
) -> None:
    order = await begin(installation, agent, RunProgram(("sh", "-c", "sleep 600 & sleep 600")))
    task, cancel = await ended(installation, agent, order)
    assert (task.state, cancel.state) == ("cancelled", "succeeded")
    assert "cancelled by" in task.message
    assert task.ended_at_ms - cancel.started_at_ms < SOON_MS


async def test_a_backup_that_runs_is_ended_and_made_again(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "random").write_bytes(os.urandom(4_000_000))
    paths = (bytes(folder),)
    order = await begin(installation, agent, RunBackup(paths, limit_upload=20_000))
    task, cancel = await ended(installation, agent, order)
    assert (task.state, cancel.state) == ("cancelled", "succeeded")
    assert task.ended_at_ms - cancel.started_at_ms < SOON_MS
    job = await submit(installation, enveloped(installation, order_to(agent, RunBackup(paths))))
    [again] = (await ended_job(installation, job.job_id)).job.tasks
    assert again.state == "succeeded", again


async def test_what_runs_after_a_backup_is_told_that_it_was_cancelled(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    folder, told = tmp_path / "files", tmp_path / "told"
    folder.mkdir()
    (folder / "random").write_bytes(os.urandom(4_000_000))
    after = ("sh", "-c", f'echo "$STEAD_BACKUP_STATE:$STEAD_POINT" >> {told}')
    action = RunBackup((bytes(folder),), limit_upload=20_000, commands=Commands(after=after))
    order = await begin(installation, agent, action)
    task, cancel = await ended(installation, agent, order)
    assert (task.state, cancel.state) == ("cancelled", "succeeded")
    assert told.read_text() == "cancelled:\n"
    # What never began has nothing to clean up after it.
    order_later = order_to(agent, action)
    later = replace(order_later, not_before=order_later.issued_at + timedelta(minutes=1))
    job = await submit(installation, enveloped(installation, later))
    task, cancel = await ended(installation, agent, job.job_id)
    assert (task.state, cancel.state) == ("cancelled", "succeeded")
    assert told.read_text() == "cancelled:\n"


async def test_a_failing_program_after_a_cancelled_backup_leaves_it_cancelled(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "random").write_bytes(os.urandom(4_000_000))
    commands = Commands(before=("true",), after=("sh", "-c", "exit 7"))
    action = RunBackup((bytes(folder),), limit_upload=20_000, commands=commands)
    order = await begin(installation, agent, action)
    task, _ = await ended(installation, agent, order)
    assert task.state == "cancelled"
    assert "the command after the backup ended with 7" in task.message


async def test_what_waits_on_the_machine_never_begins(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    order = order_to(agent, RunProgram(("touch", str(tmp_path / "touched"))))
    later = replace(order, not_before=order.issued_at + timedelta(minutes=1))
    job = await submit(installation, enveloped(installation, later))
    task, cancel = await ended(installation, agent, job.job_id)
    assert (task.state, cancel.state) == ("cancelled", "succeeded")
    assert "before it began" in task.message
    assert not (tmp_path / "touched").exists()


async def test_what_is_over_or_unknown_is_said_to_be(
    installation: Installation, agent: AgentProcess
) -> None:
    job = await submit(
        installation, enveloped(installation, order_to(agent, RunProgram(("true",))))
    )
    await ended_job(installation, job.job_id)
    task, cancel = await ended(installation, agent, job.job_id)
    assert (task.state, cancel.state, cancel.code) == ("succeeded", "failed", "precondition")
    unknown = order_to(agent, CancelOrder("or_00000000000000000000000001"))
    job = await submit(installation, enveloped(installation, unknown))
    [cancel] = (await ended_job(installation, job.job_id)).job.tasks
    assert (cancel.state, cancel.code) == ("failed", "not_found")
