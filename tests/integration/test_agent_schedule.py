"""The backup set runs by itself when it is due, in a live agent, once in its slot."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path

import msgspec

from agent.host.files import read_if_there, write_atomically
from agent.tasks.standing import load_set
from protocol.action import RunBackup, SetBackup
from protocol.v1 import proof_pb2
from protocol.v1.proof_pb2_grpc import ProofServiceStub
from tests.integration.agent_process import AgentProcess, ended_job, join, order_to
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped, submit

IMPATIENT = """
import sys
from datetime import timedelta
from pathlib import Path
from agent.app import Pace, run_agent
from agent.config import AgentHome
run_agent(AgentHome(Path(sys.argv[1])), Pace(look_for_backups=timedelta(seconds=0.1)))
"""


class ImpatientAgent(AgentProcess):
    """An agent that looks for backups that are due ten times a second."""

    def _argv(self, *words: str) -> list[str]:
        if words == ("run",):
            return [sys.executable, "-c", IMPATIENT, str(self.home.path)]
        return super()._argv(*words)

    async def points(self) -> int:
        code, out, err = await self.command("backup", "ls", "--output", "json")
        assert code == 0, err
        return len(json.loads(out))

    async def ran(self) -> dict[str, str]:
        """The run that is noted, once it is."""
        noted = await self.until(lambda: read_if_there(self.home.backup_runs))
        return dict(json.loads(noted))

    def set_earlier(self, by: timedelta) -> None:
        """As if the set had been ordered that much earlier; the order itself stays as signed."""
        kept = load_set(self.home)
        assert kept is not None
        earlier = msgspec.structs.replace(kept, set_at=kept.set_at - by)
        # As the agent does: it may be reading, and a set cut short is refused for a while.
        write_atomically(self.home.backup_set, msgspec.msgpack.encode(earlier))


async def test_a_due_backup_is_made_once_and_not_again_after_a_restart(
    installation: Installation, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"content")
    agent = ImpatientAgent(tmp_path / "machine")
    await join(installation, agent)
    order = order_to(agent, SetBackup((bytes(kept),), "weekly"))
    [task] = (
        await ended_job(
            installation, (await submit(installation, enveloped(installation, order))).job_id
        )
    ).job.tasks
    assert task.state == "succeeded", task.message
    # Nothing is due in the slot in which the set was ordered.
    assert not agent.home.backup_runs.exists()
    agent.set_earlier(timedelta(weeks=1))
    assert (await agent.ran())["state"] == "succeeded"
    assert await agent.points() == 1
    first = agent.home.backup_runs.read_bytes()
    await agent.stop()
    await agent.start()
    await agent.until_status(link="connected")
    await asyncio.sleep(0.5)  # five looks, none of which finds anything due
    assert agent.home.backup_runs.read_bytes() == first
    assert await agent.points() == 1
    await agent.stop()


async def test_a_backup_that_came_due_while_the_agent_was_away_is_made_when_it_returns(
    installation: Installation, tmp_path: Path
) -> None:
    agent = ImpatientAgent(tmp_path / "machine")
    await join(installation, agent)
    order = order_to(agent, SetBackup((b"/etc/hostname",), "hourly"))
    await ended_job(
        installation, (await submit(installation, enveloped(installation, order))).job_id
    )
    await agent.stop()
    agent.set_earlier(timedelta(days=3))
    await agent.start()
    assert (await agent.ran())["state"] == "succeeded"
    assert await agent.points() == 1
    await agent.stop()


async def test_a_due_drill_is_made_and_told_and_not_again_after_a_restart(
    installation: Installation, tmp_path: Path
) -> None:
    agent = ImpatientAgent(tmp_path / "machine")
    await join(installation, agent)
    kept = SetBackup((b"/etc/hostname",), "hourly", seal_to_machine=True, drills="weekly")
    for action in (kept, RunBackup()):
        order = order_to(agent, action)
        job = await submit(installation, enveloped(installation, order))
        [task] = (await ended_job(installation, job.job_id)).job.tasks
        assert task.state == "succeeded", task.message
    assert not agent.home.drill_runs.exists()
    agent.set_earlier(timedelta(days=8))
    noted = await agent.until(lambda: read_if_there(agent.home.drill_runs))
    assert json.loads(noted)["state"] == "succeeded"
    proofs = ProofServiceStub(installation.admin())
    listed = await proofs.ListDrills(proof_pb2.ListDrillsRequest())
    assert [drill.state for drill in listed.drills] == ["good"]
    count = len(listed.drills)
    await agent.stop()
    await agent.start()
    await agent.until_status(link="connected")
    await asyncio.sleep(0.5)  # five looks, none of which finds anything due
    assert agent.home.drill_runs.read_bytes() == noted
    assert len((await proofs.ListDrills(proof_pb2.ListDrillsRequest())).drills) == count
    await agent.stop()
