"""The controller is killed again and again while a file goes to a machine and comes back.

Whoever was told that the controller cannot be reached gives the same command again, as people
do. The file arrives whole, whatever was killed when.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from controller.cli.output.exits import UNREACHABLE
from protocol.parcel import PIECE_BYTES
from tests.faults.test_controller_kill import PATIENCE_S, ControllerProcess
from tests.integration.agent_process import AgentProcess
from tests.integration.commands import STEAD, stead
from tests.integration.conftest import Installation

SEED = 20261127
PIECES = 10


class World:
    """A controller in a process of its own, a tenant whose recovery key is here, and an agent."""

    def __init__(self, directory: Path) -> None:
        self.controller = ControllerProcess(directory / "home")
        self.agent = AgentProcess(directory / "machine")
        self.installation = Installation(
            self.controller.home, self.controller.made, cast(Any, self.controller)
        )

    async def start(self) -> None:
        await self.controller.start()
        await stead(self.installation, "tenant", "add", "acme")
        token = await stead(self.installation, "token", "new", "--tenant", "acme")
        await self.agent.enroll(token.strip())
        await self.agent.start()
        await self.agent.until_status(link="connected")

    async def insist(self, *words: str) -> None:
        """Give a command, again and again while the controller cannot be reached."""
        home = self.installation.made.operator.path.parent
        argv = ("--home", str(home), "--controller", self.installation.link_address, *words)
        async with asyncio.timeout(PATIENCE_S):
            code = UNREACHABLE
            while code == UNREACHABLE:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", STEAD, *argv),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
                try:
                    _, said = await process.communicate()
                finally:
                    if process.returncode is None:
                        process.kill()
                assert process.returncode is not None
                code = process.returncode
        assert code == 0, said.decode()

    async def killed_while(
        self, doing: asyncio.Task[None], sender: str, chance: random.Random, most: int
    ) -> int:
        """Kill the controller once it holds a piece of `sender`, then now and then, until
        something is done; how often.

        At most so often: an agent waits longer each time before it looks again.
        """
        kills = 0
        pieces = self.controller.home / "controller" / "objects" / "parcels"
        while not doing.done() and kills < most:
            if kills:
                await asyncio.wait({doing}, timeout=chance.uniform(0.5, 4))
            else:
                least = chance.randint(1, 3)
                while not doing.done() and len(list(pieces.glob(f"*/*.{sender}*.*.*"))) < least:
                    await asyncio.wait({doing}, timeout=0.02)
            if not doing.done():
                await self.controller.stop(signal.SIGKILL)
                await self.controller.start()
                kills += 1
        await doing
        return kills

    async def stop(self) -> None:
        if self.agent.alive:
            await self.agent.stop()
        await self.installation._close_channels()
        await self.controller.stop(signal.SIGTERM)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def there_and_back(world: World, folder: Path, *, most: int, seed: int) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(PIECES * PIECE_BYTES + 5)
    local, there, back = (folder / f"{name}-{seed}" for name in ("local", "there", "back"))
    local.write_bytes(content)
    slowly = ("--limit-rate", f"{PIECE_BYTES * 2}")
    put = asyncio.create_task(world.insist("file", "put", "all", str(local), str(there), *slowly))
    assert await world.killed_while(put, "operator", chance, most), seed
    assert there.read_bytes() == content, seed
    assert not list(folder.glob(".there-*")), seed
    get = asyncio.create_task(world.insist("file", "get", "all", str(there), str(back), *slowly))
    assert await world.killed_while(get, "mc_", chance, most), seed
    assert back.read_bytes() == content, seed
    assert not list(folder.glob(".back-*")), seed
    assert not list((world.installation.made.operator.path / "gets").iterdir()), seed


@pytest.mark.timeout(600)
async def test_a_file_arrives_whole_while_the_controller_is_killed(
    world: World, tmp_path: Path
) -> None:
    await there_and_back(world, tmp_path, most=1, seed=SEED)


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_files_arrive_whole_while_the_controller_is_killed_often(
    world: World, tmp_path: Path
) -> None:
    for number in range(1, 4):
        await there_and_back(world, tmp_path, most=4, seed=SEED + number)
