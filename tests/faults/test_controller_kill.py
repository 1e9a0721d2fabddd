"""The controller is killed again and again while orders are given and carried out.

Whatever it acknowledged, the order acts once and has one outcome; what it did not
acknowledge is handed in again, byte for byte, and acts once as well.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import msgspec
import pytest

from controller.app import Addresses
from controller.audit.chain import Verified, verify
from controller.audit.log import entries
from controller.authority.init import Initialised
from controller.db.database import Database
from protocol.action import RunProgram
from protocol.v1.job_pb2 import GetJobRequest, SubmitOrderRequest
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.fakes.new_database import new_installation
from tests.integration.agent_process import OVER, AgentProcess, order_to, token_text
from tests.integration.conftest import Installation
from tests.integration.test_link import enveloped

SEED = 20261127
STEAD = (sys.executable, "-c", "from controller.cli.main import main; main()")
START_S = 60.0
PATIENCE_S = 240.0
"""An agent whose controller was often away waits for a minute before it looks again."""


@dataclass
class ControllerProcess:
    """`stead controller serve`, on the same ports after every start."""

    home: Path
    words: tuple[str, ...] = ()
    made: Initialised = field(init=False)
    addresses: Addresses = field(init=False)
    """Also what an `Installation` asks its controller for."""

    def __post_init__(self) -> None:
        self.made = new_installation(self.home)

    async def start(self) -> None:
        """Start it; returns when it listens."""
        with (self.home / "log").open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(
                *(*STEAD, "--home", str(self.home), "controller", "serve", *self.words),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._running.stdout is not None
        line = await asyncio.wait_for(self._running.stdout.readline(), START_S)
        link, enrollment = re.findall(r"127\.0\.0\.1:\d+", line.decode())
        self.words = ("--listen", link, "--enroll-listen", enrollment)
        self.addresses = Addresses(link, enrollment)

    async def stop(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        if self._running.returncode is None:
            self._running.send_signal(number)
        await asyncio.wait_for(self._running.wait(), START_S)


async def insist(call: Any, request: Any) -> Any:
    """Call until there is an answer, as whoever was not answered does."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call(request, timeout=5.0)
            except grpc.aio.AioRpcError as error:
                if error.code() not in {
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                }:
                    raise
                await asyncio.sleep(0.05)


async def acted_once(directory: Path, *, orders: int, kills: int, seed: int) -> None:
    """Give orders while the controller is killed so many times, and check every one."""
    chance = random.Random(seed)
    controller = ControllerProcess(directory / "home")
    agent = AgentProcess(directory / "machine")
    await controller.start()
    installation = Installation(controller.home, controller.made, cast(Any, controller))
    try:
        tenant = await installation.add_tenant()
        await agent.enroll(await token_text(installation, tenant))
        await agent.start()
        await agent.until_status(link="connected")
        stub: Any = JobServiceStub(installation.admin())
        effects = [directory / f"effect-{number}" for number in range(orders)]
        programs = [RunProgram(("sh", "-c", f"echo done | tee -a {one}")) for one in effects]
        signed = [order_to(agent, program) for program in programs]

        async def give() -> None:
            for order in signed:
                request = SubmitOrderRequest(envelope=enveloped(installation, order))
                await insist(stub.SubmitOrder, request)
                await asyncio.sleep(chance.uniform(0, 0.05))

        giving = asyncio.create_task(give())
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0, 0.7))
            await controller.stop(signal.SIGKILL)
            await controller.start()
        await giving
        for order, effect in zip(signed, effects, strict=True):
            task = await _ended(stub, order.id)
            assert task.state == "succeeded", (seed, task)
            assert effect.read_text() == "done\n", seed
    finally:
        if agent.alive:
            await agent.stop()
        await installation._close_channels()
        await controller.stop(signal.SIGTERM)
    db = Database.open(f"sqlite:///{controller.made.controller.database}")
    log = await db.read(lambda c: entries(c, tenant, limit=100_000))
    await db.close()
    assert isinstance(verify(log, tenant), Verified)
    told = [msgspec.json.decode(one.body)["order"] for one in log if one.event == "task_ended"]
    assert sorted(told) == sorted(order.id for order in signed)


async def _ended(stub: Any, job: str) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            [task] = (await insist(stub.GetJob, GetJobRequest(job_id=job))).job.tasks
            if task.state in OVER:
                return task
            await asyncio.sleep(0.05)


async def test_a_controller_killed_under_orders_loses_none_and_doubles_none(tmp_path: Path) -> None:
    await acted_once(tmp_path, orders=15, kills=2, seed=SEED)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(3))
async def test_a_controller_killed_often_under_orders_loses_none_and_doubles_none(
    tmp_path: Path, number: int
) -> None:
    await acted_once(tmp_path, orders=150, kills=12, seed=SEED + 1 + number)
