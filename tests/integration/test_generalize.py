"""Golden images: nothing of the machine stays in them, and each copy becomes a machine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.config import render_settings
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from tests.integration.agent_process import AgentProcess, token_text
from tests.integration.conftest import Installation


@pytest.fixture
async def model(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(tmp_path / "model")
    yield made
    if made.alive:
        await made.stop()


def content(model: AgentProcess) -> bytes:
    return b"".join(p.read_bytes() for p in model.home.path.rglob("*") if p.is_file())


async def test_each_copy_of_an_image_enrolls_itself_at_its_first_start(
    installation: Installation, model: AgentProcess, tmp_path: Path
) -> None:
    tenant = await installation.add_tenant()
    identity = await model.enroll(await token_text(installation, tenant))
    settings = msgspec.structs.replace(model.home.load_settings(), deny=("run_program",))
    model.home.settings.write_bytes(render_settings(settings))
    await model.start()
    await model.until_status(link="connected")
    secrets = [
        path.read_bytes()
        for path in (model.home.key, model.home.vault_secret, model.home.sealing_key)
    ]
    token = await token_text(installation, tenant, uses=2)

    code, _, err = await model.command("generalize", "--token", "-", stdin=token)
    assert (code, "running" in err) == (1, True), err
    await model.stop()
    code, out, _ = await model.command("generalize", "--dry-run")
    assert code == 0
    assert f"goes   {model.home.key}" in out
    assert f"stays  {model.home.settings}" in out
    assert model.identity == identity
    code, _, err = await model.command("generalize", "--token", "-", stdin="stead1-nonsense")
    assert code != 0
    assert model.identity == identity
    code, _, err = await model.command("generalize", "--token", "-", stdin=token)
    assert code == 0, err
    names = {path.name for path in model.home.path.iterdir()}
    assert names == {"agent.toml", "agent.lock", "first.token"}
    assert model.home.first_token.stat().st_mode & 0o777 == 0o600
    left = content(model)
    assert not any(secret in left for secret in (*secrets, identity.machine.encode()))

    for name in ("one", "two"):
        copy = AgentProcess(tmp_path / name)
        shutil.copytree(model.home.path, copy.home.path)
        await copy.start()
        await copy.until_status(link="connected")
        await copy.stop()
        assert copy.identity.machine != identity.machine
        assert copy.home.load_settings().deny == ("run_program",)
        assert not copy.home.first_token.exists()
    answer = await MachineServiceStub(installation.admin()).ListMachines(
        operator_pb2.ListMachinesRequest()
    )
    assert len(answer.machines) == 3
    assert not any(machine.clone_of for machine in answer.machines)


async def test_an_image_without_a_token_says_how_to_enroll_it(
    installation: Installation, model: AgentProcess
) -> None:
    tenant = await installation.add_tenant()
    await model.enroll(await token_text(installation, tenant))
    assert (await model.command("generalize", "--yes"))[0] == 0
    code, _, err = await model.command("run")
    assert (code, "stead-agent enroll" in err) == (1, True)
    code, _, err = await model.command("status")
    assert code == 1
    await model.enroll(await token_text(installation, tenant))
    await model.start()
    await model.until_status(link="connected")
