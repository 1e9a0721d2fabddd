"""The journal's disk fails or is full at a system call: nothing runs unwritten or twice.

An error is put into one call of a real agent by strace. Whatever the call, the order acts
at most once, never without a durable entry before it, and the agent is never taken for
one that executed what it did not.
"""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from protocol.action import RunProgram
from protocol.codec import encode_envelope, encode_order
from protocol.ids import OrderId
from protocol.order import Order, sign
from protocol.outcome import OutcomeState
from tests.fakes.link_server import LinkServer, Realm, fresh, new_task
from tests.integration.agent_process import AgentProcess

CALLS = [("fsync", "EIO", number) for number in range(1, 6)]
CALLS += [("rename", "ENOSPC", 1)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="not run: strace is not installed")
@pytest.mark.parametrize(("call", "error", "number"), CALLS)
async def test_with_an_error_at_a_call_an_order_acts_at_most_once_and_is_never_lost(
    call: str, error: str, number: int, tmp_path: Path
) -> None:
    realm, effects = Realm(), tmp_path / "effects"
    agent = AgentProcess(tmp_path / "machine")
    async with LinkServer(realm) as server:
        machine = realm.furnish(agent.home, server.address)
        now = datetime.now(UTC).replace(microsecond=0)
        order = Order(
            id=OrderId(fresh("or")),
            tenant=machine.tenant,
            machines=(machine.machine,),
            action=RunProgram(("sh", "-c", f"echo done >> {effects}")),
            issued_at=now,
            not_before=now,
            deliver_by=now + timedelta(hours=1),
            timeout=timedelta(minutes=1),
        )
        ann = realm.operator()
        signed = sign(encode_order(order), key=ann.key, certificate=ann.certificate)
        task = new_task()
        inject = f"inject={call}:error={error}:when={number}"
        await agent.start("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        (await server.visit()).offer(task, encode_envelope(signed))
        try:
            first = await server.outcome_of(task, wait=3)
        except TimeoutError:
            first = None  # it may stand in the journal or not: the next start decides
        assert agent.alive
        await agent.stop()
        happened = effects.read_text() if effects.exists() else ""
        assert happened in {"", "done\n"}
        if first is not None and first.state is OutcomeState.SUCCEEDED:
            assert happened == "done\n"
        await agent.start()
        (await server.visit()).offer(task, encode_envelope(signed))
        last = await server.outcome_of(task)
        assert first is None or first.state is last.state
        await asyncio.sleep(0.2)
        after = effects.read_text() if effects.exists() else ""
        assert after in {"", "done\n"}
        if last.state is OutcomeState.SUCCEEDED:
            assert after == "done\n"
        await agent.stop()
