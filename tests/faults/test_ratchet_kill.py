"""The agent is killed while it takes the ratchet's next token: nothing looks like a copy then."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.host.files import read_if_there
from tests.faults.test_agent_kill import NEEDS_STRACE
from tests.integration.agent_process import AgentProcess, token_text
from tests.integration.conftest import Installation, install

POINTS = ["openat", "write", "fsync", "rename"]
"""The steps of making a token durable, in their order."""


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    running = await install(tmp_path / "home")
    yield running
    await running.close()


@NEEDS_STRACE
async def test_whenever_it_is_killed_it_is_the_same_machine_afterwards(
    installation: Installation, tmp_path: Path
) -> None:
    tenant = await installation.add_tenant()
    agent = AgentProcess(tmp_path / "machine")
    identity = await agent.enroll(await token_text(installation, tenant))
    ratchet, new = agent.home.ratchet, agent.home.path / ".ratchet.new"
    try:
        for call in POINTS:
            before = read_if_there(ratchet)
            inject = f"inject={call}:signal=KILL:when=1"
            await agent.start(
                "strace", "-f", "-qq", "-o", "/dev/null", "-P", str(new), "-e", inject
            )
            # strace ends as what it traces did, and that ended before the call.
            assert await agent.ended() == -signal.SIGKILL, agent.log.read_text()
            assert read_if_there(ratchet) == before
            await agent.start()
            await agent.until_status(link="connected", machine=identity.machine)
            # Also between the token and whatever the acknowledgement leads to.
            await agent.stop(signal.SIGKILL)
    finally:
        if agent.alive:
            await agent.stop()
    told = {entry.event for entry in await installation.audit(tenant)}
    assert told == {"tenant_added", "token_created", "machine_enrolled"}
