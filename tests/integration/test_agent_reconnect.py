"""A link that comes and goes leaves nothing behind: no task, no connection, no rush."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path

import pytest

from agent.config import AgentHome
from agent.link.identity import Credentials
from agent.link.outbox import Outbox
from agent.link.stay import Link, LinkReport, LinkState
from protocol.codec import REVISION
from protocol.errors import SteadError
from protocol.ids import TaskId
from protocol.v1 import link_pb2
from protocol.witness import Watched
from tests.fakes.link_server import LinkServer, Realm


class Heard:
    """Listens to a link, and keeps what it was told."""

    def __init__(self) -> None:
        self.reports: list[LinkReport] = []

    def link_changed(self, report: LinkReport) -> None:
        self.reports.append(report)

    def connected(self, controller_time: datetime, heartbeat: timedelta) -> None: ...

    def alive(self, controller_time: datetime) -> None: ...

    def offered(self, task: TaskId, envelope: bytes) -> None: ...

    def acknowledged(self, task: TaskId) -> None: ...

    def revoked(self, revocations: bytes) -> None: ...

    def ruled(self, policy: bytes) -> None: ...

    def watched(self) -> Watched:
        return Watched()

    def told_checkpoint(self, signed: bytes, proof: Sequence[bytes]) -> bool:
        return False

    def running(self) -> Sequence[TaskId]:
        return ()

    def ceiling(self) -> None: ...

    def inventory_root(self) -> bytes:
        return b""

    @property
    def waits(self) -> list[float]:
        """How long each pause is, in seconds."""
        return [
            (report.again_at - report.since).total_seconds()
            for report in self.reports
            if report.again_at is not None
        ]


def hello(_: Credentials) -> link_pb2.Hello:
    return link_pb2.Hello(agent_version="0", revision=REVISION)


@contextmanager
def linked(home: AgentHome, heard: Heard, *chances: float) -> Iterator[None]:
    """A link in this event loop."""
    chance = cycle(chances)
    link = Link(home, Outbox(), heard, hello=hello, journal=b"", chance=lambda: next(chance))
    running = asyncio.create_task(link.run())
    try:
        yield
    finally:
        running.cancel()


def connections() -> int:
    """How many sockets this process has."""
    sockets = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            sockets += os.readlink(entry).startswith("socket:")  # noqa: PTH115 - no file
        except FileNotFoundError:
            continue
    return sockets


async def test_forty_reconnects_leave_no_task_and_no_connection_behind(tmp_path: Path) -> None:
    home, heard = AgentHome(tmp_path / "agent"), Heard()
    async with LinkServer(Realm()) as server:
        server.realm.furnish(home, server.address)
        with linked(home, heard, 0.0):
            for _ in range(3):
                (await server.visit()).end()
            visit = await server.visit()
            await asyncio.sleep(1)  # what the connections before it left may go
            tasks, sockets = len(asyncio.all_tasks()), connections()
            visit.end()
            for _ in range(40):
                (await server.visit()).end()
            await server.visit()
            # gRPC closes what it was told to close a moment later.
            async with asyncio.timeout(10):
                while len(asyncio.all_tasks()) > tasks or connections() > sockets:
                    await asyncio.sleep(0.05)


async def test_waits_double_with_full_jitter_while_a_controller_refuses(tmp_path: Path) -> None:
    home, heard = AgentHome(tmp_path / "agent"), Heard()
    async with LinkServer(Realm()) as server:
        server.refuse = SteadError("not now")
        server.realm.furnish(home, server.address)
        # The first number of each pair is drawn for the time of renewal.
        with linked(home, heard, 0.0, 0.125):
            async with asyncio.timeout(30):
                while len(heard.waits) < 5:
                    await asyncio.sleep(0.02)
    assert heard.waits[:5] == pytest.approx([0.125, 0.25, 0.5, 1.0, 2.0], abs=0.05)
    assert {report.state for report in heard.reports} == {LinkState.CONNECTING, LinkState.WAITING}


async def test_two_holders_of_one_identity_do_not_chase_each_other(tmp_path: Path) -> None:
    """As the real controller does it: a newer link ends the older one."""
    home, heard = AgentHome(tmp_path / "agent"), Heard()
    async with LinkServer(Realm()) as server:
        server.realm.furnish(home, server.address)
        with linked(home, heard, 0.0, 0.5):
            for _ in range(3):
                visit = await server.visit()
                visit.end(SteadError("the machine made a newer link"))
            await server.visit()
    assert heard.waits[:3] == pytest.approx([0.5, 1.0, 2.0], abs=0.05)
