"""Agents and operators whose only way to the controller is an HTTP proxy."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.action import RunBackup
from protocol.ids import TenantId
from protocol.proxy import Proxy
from protocol.selection import Rules
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.link_server import LinkServer, Realm
from tests.integration.agent_process import (
    AgentProcess,
    ended_job,
    idle_agent,
    order_to,
    token_text,
)
from tests.integration.conftest import Installation
from tests.integration.test_agent_enroll import troubles
from tests.integration.test_link import enveloped, submit

__all__ = ["idle_agent"]

USER, PASSWORD = "acme", "s:cret@1"
NOTICED_S = 90.0
"""After so long a half-open connection has to be noticed by both ends."""


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    async with ConnectProxy(user=USER, password=PASSWORD) as running:
        yield running


def url_of(proxy: ConnectProxy, password: str = PASSWORD) -> str:
    return Proxy(proxy.proxy.host, proxy.proxy.port, USER, password).url


def set_proxy(agent: AgentProcess, url: str) -> None:
    lines = agent.home.settings.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("proxy = ")]
    agent.home.settings.write_text("\n".join([*lines, f'proxy = "{url}"', ""]))


async def enrolled(
    agent: AgentProcess, installation: Installation, proxy: ConnectProxy
) -> TenantId:
    tenant = await installation.add_tenant()
    token = await token_text(installation, tenant)
    code, out, err = await agent.command(
        "enroll", "--token", "-", "--proxy", "-", stdin=f"{token}\n{url_of(proxy)}\n"
    )
    assert code == 0, (out, err)
    return tenant


async def test_everything_goes_through_the_proxy(
    installation: Installation, proxy: ConnectProxy, agent: AgentProcess, tmp_path: Path
) -> None:
    await enrolled(agent, installation, proxy)
    assert set(proxy.asked) == {installation.enrollment_address}
    await agent.start()
    await agent.until_status(link="connected")
    assert proxy.asked[-1] == installation.link_address
    asked = len(proxy.asked)
    (tmp_path / "kept").write_bytes(b"kept" * 1000)
    backup = RunBackup((bytes(tmp_path / "kept"),), Rules())
    job = await submit(installation, enveloped(installation, order_to(agent, backup)))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "succeeded", task.message
    # What is backed up goes on a connection of its own.
    assert proxy.asked[asked:] == [installation.link_address]
    code, out, _ = await agent.command("status", "--output", "json")
    assert (code, json.loads(out)["proxy"]) == (0, str(proxy.proxy))
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert code == 0, out
    assert "cret" not in out + agent.log.read_text()


async def test_a_wrong_password_is_named_and_heals_when_it_is_right(
    installation: Installation, proxy: ConnectProxy, agent: AgentProcess
) -> None:
    await enrolled(agent, installation, proxy)
    set_proxy(agent, url_of(proxy, "mistyped"))
    await agent.start()
    said = await agent.until_status(link="waiting")
    assert str(proxy.proxy) in said["reason"]
    assert "(407 Proxy Authentication Required); give it a user" in said["reason"]
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert (code, troubles(out)) == (1, {"agent", "link proxy", "enrollment proxy"})
    assert "mistyped" not in out
    set_proxy(agent, "proxy:3128")
    code, out, _ = await agent.command("doctor", "--output", "json")
    assert troubles(out) >= {"link proxy", "enrollment proxy"}
    set_proxy(agent, url_of(proxy))
    await agent.until_status(link="connected")


async def test_a_proxy_of_the_environment_is_the_way_of_backups_too(
    installation: Installation, proxy: ConnectProxy, agent: AgentProcess, tmp_path: Path
) -> None:
    way = {"https_proxy": url_of(proxy)}
    token = await token_text(installation, await installation.add_tenant())
    code, out, err = await agent.command("enroll", "--token", "-", stdin=token + "\n", env=way)
    assert code == 0, (out, err)
    await agent.start(env=way)
    await agent.until_status(link="connected")
    (tmp_path / "kept").write_bytes(b"kept")
    asked = len(proxy.asked)
    backup = RunBackup((bytes(tmp_path / "kept"),), Rules())
    job = await submit(installation, enveloped(installation, order_to(agent, backup)))
    [task] = (await ended_job(installation, job.job_id)).job.tasks
    assert task.state == "succeeded", task.message
    assert installation.link_address in proxy.asked[asked:]


async def test_an_operator_goes_through_the_proxy_of_the_environment(
    installation: Installation, proxy: ConnectProxy
) -> None:
    async def typed(password: str, **more: str) -> tuple[int | None, str]:
        words = ["--home", str(installation.home), "--controller", installation.link_address]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from controller.cli.main import main; main()"),
            *(*words, "machine", "ls"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "https_proxy": url_of(proxy, password), **more},
        )
        _, err = await process.communicate()
        return process.returncode, err.decode()

    assert (await typed(PASSWORD))[0] == 0
    assert proxy.asked == [installation.link_address]
    code, err = await typed("wrong")
    assert code == 6
    assert f"the proxy {proxy.proxy} refused the connection (407" in err
    asked = len(proxy.asked)
    assert (await typed("wrong", no_proxy="127.0.0.0/8"))[0] == 0
    assert len(proxy.asked) == asked


async def test_a_connection_on_which_nothing_moves_any_more_is_given_up(
    proxy: ConnectProxy, agent: AgentProcess
) -> None:
    async with LinkServer(Realm(), heartbeat_s=1) as server:
        server.realm.furnish(agent.home, server.address)
        set_proxy(agent, url_of(proxy))
        await agent.start()
        await agent.until_status(link="connected")
        proxy.frozen.set()
        said = await agent.until_status(link="waiting")
        assert said["code"] == "unavailable"
        proxy.frozen.clear()
        await agent.until_status(link="connected")


async def is_linked(installation: Installation, tenant: TenantId) -> bool:
    stub = MachineServiceStub(installation.admin())
    answer = await stub.ListMachines(operator_pb2.ListMachinesRequest(tenant_id=tenant))
    return bool(answer.machines[0].linked)


@pytest.mark.full
async def test_both_ends_notice_a_half_open_connection_in_time(
    installation: Installation, proxy: ConnectProxy, agent: AgentProcess
) -> None:
    tenant = await enrolled(agent, installation, proxy)
    await agent.start()
    await agent.until_status(link="connected")
    assert await is_linked(installation, tenant)
    proxy.frozen.set()
    async with asyncio.timeout(NOTICED_S):
        while await is_linked(installation, tenant) or says_linked(agent):
            await asyncio.sleep(0.5)


def says_linked(agent: AgentProcess) -> bool:
    return bool(json.loads(agent.home.status.read_text())["link"] == "connected")
