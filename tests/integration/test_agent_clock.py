"""A machine whose clock is wrong says so, does nothing, and comes back when it is right."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.agent_process import AgentProcess, token_text
from tests.integration.conftest import Installation

YEAR_S = 365 * 86_400


class AgentBy(AgentProcess):
    """An agent whose clock is ahead by what a file says."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._ahead = directory / "ahead"
        self.set(0)

    def set(self, ahead_s: float) -> None:
        aside = self._ahead.with_suffix(".new")
        aside.write_text(str(ahead_s))
        aside.replace(self._ahead)

    def _argv(self, *words: str) -> list[str]:
        wrapped = ["-m", "tests.faults.by_clock", str(self._ahead)]
        return [sys.executable, *wrapped, "--home", str(self.directory), *words]


@pytest.fixture
async def agent(installation: Installation, tmp_path: Path) -> AsyncIterator[AgentBy]:
    tenant = await installation.add_tenant()
    made = AgentBy(tmp_path / "machine")
    await made.enroll(await token_text(installation, tenant))
    yield made
    if made.alive:
        await made.stop()


@pytest.mark.parametrize("ahead_s", [-5 * YEAR_S, 5 * YEAR_S, 2 * 86_400], ids=str)
async def test_a_clock_that_is_wrong_is_named_and_the_link_is_back_when_it_is_right(
    agent: AgentBy, ahead_s: float
) -> None:
    chain = agent.home.chain.read_bytes()
    agent.set(ahead_s)
    await agent.start()
    said = await agent.until_status(code="clock_skew", link="waiting")
    assert "set the" in said["reason"]
    agent.set(0)
    await agent.until_status(link="connected")
    # Nothing was taken for true meanwhile.
    assert agent.home.chain.read_bytes() == chain
