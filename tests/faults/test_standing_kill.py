"""The agent is killed at system calls between a run's coming due and its acknowledged outcome.

Whatever the moment: the run's effect happens at most once, it ends in one outcome, the
controller is told of it under one task, and no second run is made in its slot.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.tasks.in_force import take_in
from protocol.action import RunProgram
from protocol.codec import encode_order, to_ms
from protocol.ids import OrderId
from protocol.order import Order, sign
from protocol.outcome import OutcomeState
from protocol.standing import Standing
from tests.fakes.link_server import DAY, LinkServer, Realm, fresh
from tests.integration.agent_process import AgentProcess
from tests.integration.test_standing_order import IMPATIENT

SAMPLED = [("fsync", 2), ("fsync", 3), ("pwrite64", 1)]
SAMPLED += [("write", number) for number in (4, 6, 8, 10)]
EVERY = [("fsync", number) for number in range(1, 7)]
EVERY += [("write", number) for number in range(1, 30)]
EVERY += [("rename", number) for number in range(1, 4)]
EVERY += [("pwrite64", number) for number in range(1, 4)]
NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="not run: strace is not installed"
)
TAKEN_IN = datetime.now(UTC).replace(microsecond=0) - 2 * DAY


class Impatient(AgentProcess):
    """An agent that looks for runs that are due ten times a second."""

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", IMPATIENT, str(self.home.path)]


async def killed_at(call: str, number: int, directory: Path) -> bool:
    """Kill the agent at one system call, let it come back, and check; was it killed at all?"""
    realm, agent = Realm(), Impatient(directory / "machine")
    effects = directory / "effects"
    async with LinkServer(realm) as server:
        server.revision = 3
        _put_in_force(realm, agent, server, effects)
        inject = f"inject={call}:signal=KILL:when={number}"
        await agent.start("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        telling = asyncio.create_task(_told(agent, server))
        dying = asyncio.create_task(agent.ended())
        await asyncio.wait({telling, dying}, return_when=asyncio.FIRST_COMPLETED)
        killed = dying.done()
        for work in (telling, dying):
            work.cancel()
        await asyncio.gather(telling, dying, return_exceptions=True)
        if killed:
            await agent.start()
            await _told(agent, server)
        await agent.stop()
        _check(server, agent, effects)
    return killed


def _put_in_force(realm: Realm, agent: Impatient, server: LinkServer, effects: Path) -> None:
    machine = realm.furnish(agent.home, server.address)
    order = Order(
        id=OrderId(fresh("or")),
        tenant=machine.tenant,
        machines=(machine.machine,),
        action=RunProgram(("sh", "-c", f"echo done | tee -a {effects}")),
        issued_at=TAKEN_IN,
        not_before=TAKEN_IN,
        deliver_by=TAKEN_IN + DAY,
        timeout=timedelta(minutes=1),
        standing=Standing("weekly", to_ms(TAKEN_IN + 100 * DAY)),
    )
    begun = TAKEN_IN - DAY
    ann = realm.operator(begins=begun, life=30 * DAY)
    envelope = sign(encode_order(order), key=ann.key, certificate=ann.certificate)
    # Weeks ago by its own note, so that this slot is another one.
    take_in(agent.home, order, envelope, now=TAKEN_IN - 30 * DAY, past=TAKEN_IN - 30 * DAY)


async def _told(agent: Impatient, server: LinkServer) -> None:
    """Wait until the agent has taken note that the run's outcome was acknowledged."""
    await server.until(lambda: bool(server.outcomes), wait=60)
    async with asyncio.timeout(20):
        while b'"acknowledged"' not in agent.home.journal.read_bytes():
            if not agent.alive:
                return
            await asyncio.sleep(0.01)


def _check(server: LinkServer, agent: Impatient, effects: Path) -> None:
    happened = effects.read_text().count("done\n") if effects.exists() else 0
    ends = {(outcome.task, outcome.state) for outcome in server.outcomes}
    assert len(ends) == 1, ends
    [(task, end)] = ends
    assert [run.number for run in server.runs.values()] == [1]
    assert list(server.runs) == [task]
    assert end in {OutcomeState.SUCCEEDED, OutcomeState.INDETERMINATE}
    assert happened == 1 if end is OutcomeState.SUCCEEDED else happened <= 1
    assert agent.home.journal.read_bytes().count(b'"kind":"accepted"') == 1


@NEEDS_STRACE
@pytest.mark.parametrize(("call", "number"), SAMPLED)
async def test_killed_at_a_sampled_call_a_run_acts_at_most_once(
    call: str, number: int, tmp_path: Path
) -> None:
    assert await killed_at(call, number, tmp_path)


@NEEDS_STRACE
@pytest.mark.full
@pytest.mark.parametrize(("call", "number"), EVERY)
async def test_killed_at_every_call_a_run_acts_at_most_once(
    call: str, number: int, tmp_path: Path
) -> None:
    killed = await killed_at(call, number, tmp_path)
    print(f"{call} {number}: {'killed' if killed else 'not reached'}")
