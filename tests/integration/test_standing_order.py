"""Standing orders from the command line to a live agent and back, over real mutual TLS."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.host import clock as agent_clock
from agent.host.files import write_atomically
from agent.tasks import untold
from agent.tasks.entry import Entry, State
from agent.tasks.in_force import KeptOrder, load_order
from agent.tasks.journal import Journal
from protocol.codec import decode_envelope, decode_order
from protocol.ids import TaskId
from protocol.outcome import Outcome, OutcomeState
from protocol.standing import Run, job_of_run
from protocol.v1 import job_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.integration.agent_process import AgentProcess, ended_job, join
from tests.integration.commands import stead
from tests.integration.conftest import Installation

IMPATIENT = """
import sys
from datetime import timedelta
from pathlib import Path
from agent.app import Pace, run_agent
from agent.config import AgentHome
run_agent(AgentHome(Path(sys.argv[1])), Pace(look_for_runs=timedelta(seconds=0.1)))
"""


class ImpatientAgent(AgentProcess):
    """An agent that looks for runs that are due ten times a second."""

    def _argv(self, *words: str) -> list[str]:
        if words == ("run",):
            return [sys.executable, "-c", IMPATIENT, str(self.home.path)]
        return super()._argv(*words)

    def taken_in_earlier(self, order: str) -> None:
        """As if the order had been taken in an hour before; it stays as it was signed."""
        path = self.home.standing / order
        kept = msgspec.msgpack.decode(path.read_bytes(), type=KeptOrder)
        earlier = msgspec.structs.replace(kept, taken_in_at=kept.taken_in_at - timedelta(hours=25))
        write_atomically(path, msgspec.msgpack.encode(earlier))


async def standing(installation: Installation, order: str) -> job_pb2.StandingMachine:
    """How an order stands on its one machine."""
    jobs = JobServiceStub(installation.admin())
    answer = await jobs.ListStanding(job_pb2.ListStandingRequest(order_id=order))
    [found] = answer.orders
    [machine] = found.machines
    return machine


async def ran(installation: Installation, order: str, state: str) -> job_pb2.StandingMachine:
    """Wait until the order's last run has come to a state."""
    async with asyncio.timeout(60):
        while (machine := await standing(installation, order)).last_state != state:
            await asyncio.sleep(0.05)
    return machine


async def test_a_standing_order_is_made_runs_by_itself_and_is_revoked(
    installation: Installation, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    agent = ImpatientAgent(tmp_path / "machine")
    await join(installation, agent)
    bounds = ("--every", "daily", "--until", "90d", "--max-runs", "2", "--name", "tidy")
    program = ("--", "sh", "-c", f"echo x >> {marker}; echo told")
    rows = json.loads(await stead(installation, "run", "all", *bounds, "-o", "json", *program))
    [row] = rows
    assert (row["state"], row["next_run_at"] is not None) == ("succeeded", True)
    order = row["job"]
    machine = await standing(installation, order)
    assert (machine.state, machine.runs, machine.last_state) == ("in force", 0, "")
    assert machine.next_run_at_ms > machine.taken_in_at_ms > 0

    agent.taken_in_earlier(order)
    machine = await ran(installation, order, "succeeded")
    assert (machine.runs, machine.state) == (1, "in force")
    run = await ended_job(installation, machine.last_job_id)
    assert b"".join(piece.data for piece in run.output) == b"told\n"
    assert run.job.standing_order_id == order
    listed = json.loads(await stead(installation, "job", "ls", "-o", "json"))
    assert [job["job"] for job in listed] == [order], "runs are listed when they are asked for"
    runs = json.loads(await stead(installation, "job", "ls", "--order", order, "-o", "json"))
    assert [job["job"] for job in runs] == [machine.last_job_id]

    await agent.stop()
    await agent.start()
    await agent.until_status(link="connected")
    await asyncio.sleep(0.5)  # five looks, none of which finds anything due
    assert marker.read_text() == "x\n"
    assert (await standing(installation, order)).runs == 1
    await agent.stop()
    # Nobody waits for a machine that is away, for as long as the order stands.
    away = ("run", "all", "--every", "daily", "--until", "90d", "-o", "json", "--", "true")
    [queued] = json.loads(await stead(installation, *away))
    assert queued["state"] == "queued"
    assert (await standing(installation, queued["job"])).state == "sent"
    await stead(installation, "order", "revoke", "tidy", "--yes")
    assert (await standing(installation, order)).state == "revoking"


async def test_a_run_that_was_made_while_nobody_listened_is_told_later(
    installation: Installation, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    agent = ImpatientAgent(tmp_path / "machine")
    await join(installation, agent)
    words = ("--every", "daily", "--until", "90d", "-o", "json", "--", "sh", "-c")
    program = f"echo x >> {marker}; echo later; exit 7"
    [row] = json.loads(await stead(installation, "run", "all", *words, program))
    order = row["job"]
    await agent.stop()
    settings = agent.home.settings.read_text()
    agent.home.settings.write_text(settings.replace(installation.link_address, "127.0.0.1:1"))
    agent.taken_in_earlier(order)
    await agent.start()
    await agent.until(lambda: marker.exists() or None)
    await agent.stop()
    assert (await standing(installation, order)).runs == 0
    agent.home.settings.write_text(settings)
    await agent.start()
    machine = await ran(installation, order, "failed")
    assert machine.runs == 1
    run = await ended_job(installation, machine.last_job_id)
    assert (run.job.tasks[0].exit_code, [p.data for p in run.output]) == (7, [b"later\n"])
    assert marker.read_text() == "x\n"
    await agent.until_status(link="connected")

    out = await stead(installation, "order", "revoke", order, "--yes", "-o", "json")
    rows: list[dict[str, Any]] = json.loads(out)
    assert [one["state"] for one in rows] == ["revoked"]
    assert not (agent.home.standing / order).exists()
    assert "in force" not in await stead(installation, "order", "ls")
    names = [entry.event for entry in await installation.audit(agent.identity.tenant)]
    assert names.count("order_submitted") == 2
    assert names.count("task_ended") == 3
    await agent.stop()


async def test_what_was_summed_up_while_nobody_listened_is_told_in_the_sum(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = ImpatientAgent(tmp_path / "machine")
    await join(installation, agent)
    words = ("--every", "daily", "--until", "90d", "-o", "json", "--", "true")
    [row] = json.loads(await stead(installation, "run", "all", *words))
    await agent.stop()
    monkeypatch.setattr(untold, "MOST", 8)
    journal = Journal(agent.home.journal)
    order = decode_order(decode_envelope(load_order(agent.home, row["job"]).envelope).order)
    begun = order.issued_at - timedelta(days=60)
    for number in range(1, 31):
        run = Run(order.id, begun + number * timedelta(days=1), number)
        one = replace(order, id=job_of_run(run.order, run.slot), standing=None)
        task = TaskId(agent_clock.new_id("ts"))
        journal.accept_run(one, task, run, order.deliver_by)
        journal.start(one.id, run.slot)
        state = OutcomeState.FAILED if number == 3 else OutcomeState.SUCCEEDED
        journal.end(one.id, Outcome(task, state, ended_at=run.slot))
    left = [entry for entry in journal.entries() if entry.run is not None]
    journal.close()
    await agent.start()
    machine = await ran(installation, order.id, "succeeded")
    async with asyncio.timeout(60):
        while machine.runs < 30 or any(
            entry.state is not State.ACKNOWLEDGED for entry in noted(agent)
        ):
            await asyncio.sleep(0.05)
            machine = await standing(installation, order.id)
    await agent.stop()
    listed = json.loads(await stead(installation, "job", "ls", "--order", order.id, "-o", "json"))
    assert len(listed) == len(left) < 8
    told = Counter[str]()
    for job in listed:
        [shown] = json.loads(await stead(installation, "job", "show", job["job"], "-o", "json"))[
            "tasks"
        ]
        told[shown["state"]] += 1
        for count, state in re.findall(r"(\d+) (succeeded|failed)", shown["message"]):
            told[state] += int(count)
    assert told == {"succeeded": 29, "failed": 1}


def noted(agent: AgentProcess) -> list[Entry]:
    """The runs in an agent's journal, which it may be writing."""
    copy = agent.directory / "journal.copy"
    copy.write_bytes(agent.home.journal.read_bytes())
    journal = Journal(copy)
    journal.close()
    return [entry for entry in journal.entries() if entry.run is not None]
