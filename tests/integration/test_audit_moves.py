"""Machines stay witnesses when their controller moves, and when the tenant's key changes."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from agent.witness.keep import load_watched
from controller.app import Controller
from controller.cli.main import run
from protocol.action import Rehome
from protocol.ids import TenantId
from protocol.v1 import operator_pb2
from protocol.v1.job_pb2 import SubmitOrderRequest
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.operator_pb2_grpc import TenantServiceStub
from tests.integration.agent_process import AgentProcess, ended_job
from tests.integration.conftest import Installation
from tests.integration.test_audit_witness import kept, rename, signed, soon

__all__ = ["soon"]


async def typed(
    installation: Installation, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Run `stead` as the first administrator."""
    start = ["--home", str(installation.home), "--controller", installation.link_address]
    capsys.readouterr()
    code = await asyncio.to_thread(run, [*start, *words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
async def agent(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[AgentProcess]:
    """A connected machine of a tenant whose key the operator has, as typed."""
    assert (await typed(installation, capsys, "tenant", "add", "acme"))[0] == 0
    code, token, said = await typed(installation, capsys, "token", "new", "--tenant", "acme")
    assert code == 0, said
    made = AgentProcess(tmp_path / "machine")
    await made.enroll(token.strip())
    await made.start()
    await made.until_status(link="connected")
    yield made
    if made.alive:
        await made.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_controller_that_moves_as_the_guide_says_alarms_nobody(
    installation: Installation,
    agent: AgentProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tenant, machine = agent.identity.tenant, agent.identity.machine
    link, enrollment = (f"127.0.0.1:{free_port()}" for _ in range(2))
    envelope = installation.signed_order(
        installation.admin_key,
        installation.admin_certificate,
        tenant,
        machine,
        action=Rehome(link, enrollment),
    )
    stub = JobServiceStub(installation.admin())
    job = (await stub.SubmitOrder(SubmitOrderRequest(envelope=envelope))).job.job_id
    assert (await ended_job(installation, job)).job.tasks[0].state == "succeeded"
    await kept(agent, await signed(installation, tenant))
    await installation._close_channels()
    await installation.controller.stop(timedelta())
    shutil.copytree(installation.home, tmp_path / "new")
    settings = msgspec.structs.replace(
        installation.made.controller.load_settings(), listen=link, enroll_listen=enrollment
    )
    new = Installation(
        tmp_path / "new", installation.made, await Controller.serve(tmp_path / "new", settings)
    )
    try:
        await agent.until(lambda: new.controller.parts.presence.linked(machine) or None)
        await rename(new, machine, "moved")
        await kept(agent, await signed(new, tenant))
        assert load_watched(agent.home).alarms == {}
        new.home = installation.home  # the operator's profile is still the same
        asked = ("audit", "witness", "all", "--tenant", "acme", "--yes", "--output", "json")
        code, out, said = await typed(new, capsys, *asked)
        assert code == 0, (out, said)
    finally:
        await agent.stop()
        await new.close()
        installation.controller = await Controller.serve(installation.home)


async def test_a_machine_proves_its_word_by_the_key_in_force(
    installation: Installation, agent: AgentProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    tenants = TenantServiceStub(installation.admin())
    [acme] = (await tenants.ListTenants(operator_pb2.ListTenantsRequest())).tenants
    key_file = installation.made.operator.path / "tenants" / f"{acme.tenant_id}.key"
    before, secret = key_file.read_bytes(), agent.home.vault_secret.read_bytes()
    asked = ("audit", "witness", "all", "--tenant", "acme", "--yes", "--output", "json")
    await kept(agent, await signed(installation, TenantId(acme.tenant_id)))
    assert (await typed(installation, capsys, *asked))[0] == 0

    code, _, said = await typed(installation, capsys, "tenant", "key", "rotate", "acme", "--yes")
    assert code == 0, said
    await agent.until(lambda: agent.home.vault_secret.read_bytes() != secret or None)
    code, out, said = await typed(installation, capsys, *asked)
    assert code == 0, (out, said)
    assert load_watched(agent.home).alarms == {}

    # Who has the key of before alone cannot tell, and is told what brings the newest.
    after = key_file.read_bytes()
    key_file.write_bytes(before)
    code, _, said = await typed(installation, capsys, *asked)
    assert code == 3, said
    assert "tenant key receive" in said.replace("\n", " ")

    # An answer by the key of before may be of whoever has stolen that.
    key_file.write_bytes(after)
    agent.home.vault_secret.write_bytes(secret)
    code, _, said = await typed(installation, capsys, *asked)
    assert code == 3, said
    assert "was replaced" in said.replace("\n", " ")
