"""Machines move to another controller of the same root, and to nobody else."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from agent.config import render_settings
from controller.app import Controller
from protocol.action import Rehome
from protocol.v1 import job_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.fakes.link_server import LinkServer, Realm
from tests.integration.agent_process import AgentProcess, ended_job, token_text
from tests.integration.conftest import Installation


@pytest.fixture
async def agent(installation: Installation, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(tmp_path / "machine")
    await made.enroll(await token_text(installation, await installation.add_tenant()))
    await made.start()
    await made.until_status(link="connected")
    yield made
    if made.alive:
        await made.stop()


async def order(installation: Installation, agent: AgentProcess, link: str, enroll: str) -> str:
    """Order the move and wait for its outcome; the state of the task."""
    envelope = installation.signed_order(
        installation.admin_key,
        installation.admin_certificate,
        agent.identity.tenant,
        agent.identity.machine,
        action=Rehome(link, enroll),
    )
    stub = JobServiceStub(installation.admin())
    job = (await stub.SubmitOrder(job_pb2.SubmitOrderRequest(envelope=envelope))).job.job_id
    return (await ended_job(installation, job)).job.tasks[0].state


async def test_a_machine_moves_once_the_new_controller_has_welcomed_it(
    installation: Installation, agent: AgentProcess, tmp_path: Path
) -> None:
    home = installation.home
    await installation._close_channels()
    await installation.controller.stop(timedelta())
    shutil.copytree(home, tmp_path / "new")
    installation.controller = await Controller.serve(home)
    # The machine knows the old ports; they are others now.
    await agent.stop()
    settings = msgspec.structs.replace(
        agent.home.load_settings(),
        link_address=installation.link_address,
        enrollment_address=installation.enrollment_address,
    )
    agent.home.settings.write_bytes(render_settings(settings))
    await agent.start()
    await agent.until_status(link="connected")

    new = await Controller.serve(tmp_path / "new")
    try:
        to = new.addresses
        assert await order(installation, agent, to.link, to.enrollment) == "succeeded"
        await agent.until(
            lambda: True if agent.home.load_settings().link_address == to.link else None
        )
        await agent.until_status(link="connected")
        await agent.until(lambda: new.parts.presence.linked(agent.identity.machine) or None)
        assert agent.home.load_settings().enrollment_address == to.enrollment
        await agent.stop()
        await agent.start()
        await agent.until(lambda: new.parts.presence.linked(agent.identity.machine) or None)
    finally:
        await agent.stop()
        await new.stop(timedelta())


async def test_a_controller_of_another_root_gets_nobody(
    installation: Installation, agent: AgentProcess
) -> None:
    before = agent.home.settings.read_bytes()
    async with LinkServer(Realm()) as stranger:
        state = await order(installation, agent, stranger.address, stranger.open_address)
        assert state == "succeeded"
        await agent.until(
            lambda: next(
                (e for e in agent.events() if e["event"] == "new_controller_not_reached"), None
            )
        )
        await agent.until_status(link="connected")
        assert stranger.visits.empty()
    assert agent.home.settings.read_bytes() == before
    # An address at which nobody answers keeps nobody from the old one.
    assert await order(installation, agent, "127.0.0.1:1", "127.0.0.1:1") == "succeeded"
    await agent.until_status(link="connected")
    assert agent.home.settings.read_bytes() == before
