"""A new release is put under the feet of a running agent: nothing fails, and it begins anew."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.config import AgentHome
from agent.host.lock import holder_of
from agent.version import VERSION
from protocol.action import Action, CollectInventory, RunProgram
from protocol.codec import encode_envelope
from protocol.errors import Code
from protocol.outcome import OutcomeState
from tests.fakes.link_server import LinkServer, Realm, Visit, new_task
from tests.integration.agent_process import AgentProcess
from tests.integration.test_agent_hostile import Forger

HERE = Path(__file__).parents[2]
NEWER = "99.0.0"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The agent's packages, installed where a test can replace them."""
    target = tmp_path / "code"
    for package in ("agent", "protocol"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(HERE / package, target / package, ignore=ignored)
    return target


@pytest.fixture
async def agent(tmp_path: Path, code: Path) -> AsyncIterator[AgentProcess]:
    running = AgentProcess(tmp_path / "machine", code)
    yield running
    if running.alive:
        await running.stop()


@pytest.fixture
async def server() -> AsyncIterator[LinkServer]:
    async with LinkServer(Realm(), heartbeat_s=1) as running:
        yield running


def upgrade(code: Path) -> None:
    """Replace the agent as a package manager does: another file under the same name."""
    version = code / "agent" / "version.py"
    new = version.with_name("version.py.new")
    new.write_text(version.read_text().replace(f'"{VERSION}"', f'"{NEWER}"'))
    new.replace(version)


class Orders:
    """Orders to one machine, each really signed."""

    def __init__(self, server: LinkServer, home: AgentHome) -> None:
        self.realm = server.realm
        self.forger = Forger(server.realm, server.realm.furnish(home, server.address), Path())

    def offer(self, visit: Visit, action: Action) -> str:
        task = new_task()
        signed = self.forger.signed(self.realm.operator(), action=action)
        visit.offer(task, encode_envelope(signed))
        return task


async def test_what_runs_ends_what_comes_waits_and_the_new_release_goes_on(
    server: LinkServer, agent: AgentProcess, code: Path, tmp_path: Path
) -> None:
    orders = Orders(server, agent.home)
    await agent.start()
    visit = await server.visit()
    go = tmp_path / "go"
    waits = f"while ! test -e {go}; do sleep 0.05; done; echo old"
    running = orders.offer(visit, RunProgram(("sh", "-c", waits)))
    await server.until(lambda: any(running in one.running_task_ids for one in server.heartbeats))
    process = holder_of(agent.home.lock)
    upgrade(code)
    said = await agent.until_status(replaced=True)
    assert (said["version"], said["link"]) == (VERSION, "connected")
    waiting = orders.offer(visit, RunProgram(("echo", "new")))
    _, out, _ = await agent.command("status")
    assert "its files were replaced" in out
    await server.until(lambda: any(waiting in one.running_task_ids for one in server.heartbeats))
    assert not server.printed(waiting)
    go.touch()
    assert (await server.outcome_of(running)).state is OutcomeState.SUCCEEDED
    assert server.printed(running) == b"old\n"
    visit = await server.visit()
    assert (await server.outcome_of(waiting)).state is OutcomeState.SUCCEEDED
    assert server.printed(waiting) == b"new\n"
    await agent.until_status(link="connected", version=NEWER, replaced=False)
    assert holder_of(agent.home.lock) == process
    # A worker starts from the packages under test, which are of another release than this one.
    outcome = await server.outcome_of(orders.offer(visit, CollectInventory(("cpu",))))
    assert (outcome.state, outcome.code) == (OutcomeState.FAILED, Code.UPGRADE_REQUIRED)
    assert f"the running agent is of release {NEWER}" in outcome.message


async def test_while_files_are_missing_nothing_begins_and_the_agent_stays(
    server: LinkServer, agent: AgentProcess, code: Path
) -> None:
    orders = Orders(server, agent.home)
    await agent.start()
    visit = await server.visit()
    version = code / "agent" / "version.py"
    kept = version.with_name("kept")
    version.replace(kept)
    await agent.until_status(replaced=True)
    task = orders.offer(visit, RunProgram(("echo", "here")))
    await server.until(lambda: any(task in one.running_task_ids for one in server.heartbeats))
    assert agent.alive
    kept.replace(version)
    # The very file is back, and so is everything else.
    assert (await server.outcome_of(task)).state is OutcomeState.SUCCEEDED


async def test_systemd_is_not_told_that_an_agent_stops_which_goes_on(
    server: LinkServer, agent: AgentProcess, code: Path, tmp_path: Path
) -> None:
    """It would end a service that said so, tasks and all, once the time to stop is over."""
    Orders(server, agent.home)
    address, told = str(tmp_path / "notify"), list[bytes]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        loop = asyncio.get_running_loop()
        loop.add_reader(systemd, lambda: told.append(systemd.recv(1000)))
        await agent.start(env={"NOTIFY_SOCKET": address})
        await agent.until_status(link="connected")
        upgrade(code)
        await agent.until_status(link="connected", version=NEWER)
        await agent.stop()
        await agent.until(lambda: b"STOPPING=1" in told or None)
        loop.remove_reader(systemd)
    words = [word for word in told if not word.startswith(b"STATUS=")]
    assert words == [b"READY=1", b"READY=1", b"STOPPING=1"]
