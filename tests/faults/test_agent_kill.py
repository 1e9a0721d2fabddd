"""The agent is killed at system calls between an order's arrival and its acknowledged outcome.

Whatever the moment: the order's effect happens at most once, the task ends in one
outcome, and "succeeded" is never said of what did not happen.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from protocol.action import RunProgram
from protocol.codec import encode_envelope, encode_order
from protocol.ids import OrderId
from protocol.order import Order, sign
from protocol.outcome import Outcome, OutcomeState
from tests.fakes.link_server import LinkServer, Realm, fresh, new_task
from tests.integration.agent_process import AgentProcess

SAMPLED = [("fsync", 2), ("fsync", 3), ("fsync", 4), ("pwrite64", 2), ("pwrite64", 1)]
SAMPLED += [("write", number) for number in (4, 6, 7, 8, 9, 10, 11, 12)]
EVERY = [("fsync", number) for number in range(1, 9)]
EVERY += [("write", number) for number in range(1, 40)]
EVERY += [("rename", number) for number in range(1, 6)]
EVERY += [("pwrite64", number) for number in range(1, 4)]
NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="not run: strace is not installed"
)


async def killed_at(call: str, number: int, directory: Path, *, repeatable: bool = False) -> bool:
    """Kill the agent at one system call, let it come back, and check; was it killed at all?"""
    realm = Realm()
    agent = AgentProcess(directory / "machine")
    effects = directory / "effects"
    async with LinkServer(realm) as server:
        machine = realm.furnish(agent.home, server.address)
        now = datetime.now(UTC).replace(microsecond=0)
        order = Order(
            id=OrderId(fresh("or")),
            tenant=machine.tenant,
            machines=(machine.machine,),
            action=RunProgram(("sh", "-c", f"echo done | tee -a {effects}")),
            issued_at=now,
            not_before=now,
            deliver_by=now + timedelta(hours=1),
            timeout=timedelta(minutes=1),
        )
        ann = realm.operator()
        order = replace(order, repeatable=repeatable)
        envelope = encode_envelope(
            sign(encode_order(order), key=ann.key, certificate=ann.certificate)
        )
        task = new_task()
        inject = f"inject={call}:signal=KILL:when={number}"
        await agent.start("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        killed = await _through(agent, server, task, envelope)
        if killed:
            await agent.start()
            visit = await server.visit()
            visit.offer(task, envelope)
            await server.outcome_of(task)
            await _settled(agent, server)
        _check(server.outcomes, effects, repeatable=repeatable)
        # A restart tells nothing new of what was acknowledged.
        await agent.stop()
    return killed


async def _through(agent: AgentProcess, server: LinkServer, task: str, envelope: bytes) -> bool:
    """Offer the task and wait for its outcome or the agent's death; was it killed?"""

    async def conversation() -> None:
        visit = await server.visit()
        visit.offer(task, envelope)
        await server.outcome_of(task)
        await _settled(agent, server)

    talking = asyncio.create_task(conversation())
    dying = asyncio.create_task(agent.ended())
    await asyncio.wait({talking, dying}, return_when=asyncio.FIRST_COMPLETED)
    killed = dying.done()
    for work in (talking, dying):
        work.cancel()
    await asyncio.gather(talking, dying, return_exceptions=True)
    return killed


async def _settled(agent: AgentProcess, server: LinkServer) -> None:
    """Wait until the agent has taken note that its outcome was acknowledged."""
    async with asyncio.timeout(20):
        while b'"acknowledged"' not in agent.home.journal.read_bytes():
            if not agent.alive:
                return
            await asyncio.sleep(0.01)


def _check(outcomes: list[Outcome], effects: Path, *, repeatable: bool) -> None:
    happened = effects.read_text().count("done\n") if effects.exists() else 0
    ends = {outcome.state for outcome in outcomes}
    assert len(ends) == 1, ends
    [end] = ends
    if repeatable:
        assert end is OutcomeState.SUCCEEDED
        assert happened >= 1
        return
    assert happened <= 1
    assert end in {OutcomeState.SUCCEEDED, OutcomeState.INDETERMINATE}
    if end is OutcomeState.SUCCEEDED:
        assert happened == 1


@NEEDS_STRACE
@pytest.mark.parametrize(("call", "number"), SAMPLED)
async def test_killed_at_a_sampled_call_an_order_acts_at_most_once(
    call: str, number: int, tmp_path: Path
) -> None:
    assert await killed_at(call, number, tmp_path)


@NEEDS_STRACE
@pytest.mark.parametrize("number", [3, 4])
async def test_killed_at_any_fsync_a_repeatable_order_succeeds_in_the_end(
    number: int, tmp_path: Path
) -> None:
    assert await killed_at("fsync", number, tmp_path, repeatable=True)


@NEEDS_STRACE
@pytest.mark.full
@pytest.mark.parametrize(("call", "number"), EVERY)
async def test_killed_at_every_call_an_order_acts_at_most_once(
    call: str, number: int, tmp_path: Path
) -> None:
    await killed_at(call, number, tmp_path)
