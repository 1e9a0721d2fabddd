"""Agents as witnesses of a real controller whose database is edited behind its back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, insert, select

from controller.audit.alarms import alarms_kept
from controller.audit.chain import EMPTY, Entry, Head, entry_hash
from controller.audit.log import entries
from controller.cli.main import run
from controller.cli.operator.keyring import Keyring
from controller.db.schema import audit, audit_checkpoints, audit_nodes
from controller.rpc import telling
from protocol.ids import TenantId
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from protocol.vault.epochs import TenantKeys
from tests.integration.agent_process import TENANT_KEY, WAIT_S, AgentProcess, token_text
from tests.integration.conftest import Installation


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell checkpoints as soon as there are new ones."""
    monkeypatch.setattr(telling, "CHECKPOINTS_FIRST_S", 0.0)
    monkeypatch.setattr(telling, "CHECKPOINTS_EVERY_S", 0.2)


@pytest.fixture
async def agents(
    installation: Installation, tmp_path: Path
) -> AsyncIterator[tuple[AgentProcess, AgentProcess]]:
    """Two connected machines of one tenant."""
    tenant = await installation.add_tenant()
    running = AgentProcess(tmp_path / "one"), AgentProcess(tmp_path / "two")
    for agent in running:
        await agent.enroll(await token_text(installation, tenant))
        await agent.start()
        await agent.until_status(link="connected")
    yield running
    for agent in running:
        if agent.alive:
            await agent.stop()


async def kept(agent: AgentProcess, size: int) -> None:
    """Wait until a machine keeps a checkpoint of its tenant's log of so many entries."""
    from agent.witness.keep import load_watched

    tenant = agent.identity.tenant
    await agent.until(
        lambda: True if load_watched(agent.home).sizes().get(tenant, 0) >= size else None
    )


async def signed(installation: Installation, tenant: TenantId) -> int:
    """Sign the log as it is; how many entries it has."""
    made = await installation.controller.parts.checkpoints.make(tenant)
    assert made is not None
    return made.checkpoint.size


async def rename(installation: Installation, machine: str, name: str) -> None:
    request = operator_pb2.RenameMachineRequest(machine_id=machine, name=name)
    await MachineServiceStub(installation.admin()).RenameMachine(request)


def written_anew(old: list[Entry], number: int) -> list[Entry]:
    """The log with one entry changed, and all hashes after it made to fit."""
    head, made = EMPTY, []
    for entry in old:
        body = '{"name":"nobody"}' if entry.seq == number else entry.body
        fields = (entry.at, entry.actor, entry.event, body)
        digest = entry_hash(head.hash, entry.tenant_id, entry.seq, *fields)
        made.append(replace(entry, body=body, previous=head.hash, hash=digest))
        head = Head(entry.seq, digest)
    return made


def rewrite(connection: Connection, tenant: str, number: int) -> None:
    """What a hostile controller would do: change an entry, and all that shows it."""
    anew = written_anew(entries(connection, tenant, limit=100_000), number)
    for table in (audit, audit_checkpoints, audit_nodes):
        connection.execute(delete(table).where(table.c.tenant_id == tenant))
    for entry in anew:
        row = {field: getattr(entry, field) for field in entry.__slots__}
        connection.execute(insert(audit), row)


async def alarm_of(installation: Installation, machine: str) -> str:
    """Wait until the controller says what a machine found wrong."""
    machines = MachineServiceStub(installation.admin())
    async with asyncio.timeout(WAIT_S):
        while True:
            listed = (await machines.ListMachines(operator_pb2.ListMachinesRequest())).machines
            said = next(m.audit_alarm for m in listed if m.machine_id == machine)
            if said:
                return str(said)
            await asyncio.sleep(0.05)


async def no_alarm_of(installation: Installation, machine: str) -> None:
    """Wait until the controller has nothing to say of a machine any more."""
    db = installation.controller.parts.db
    async with asyncio.timeout(WAIT_S):
        while await db.read(lambda c: alarms_kept(c, machine)):
            await asyncio.sleep(0.05)


async def test_a_damaged_file_is_told_and_its_alarm_stays_until_an_order_takes_it_back(
    installation: Installation,
    agents: tuple[AgentProcess, AgentProcess],
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = agents
    tenant, machine = one.identity.tenant, one.identity.machine
    size = await signed(installation, tenant)
    for agent in agents:
        await kept(agent, size)
    # One finds it while it is linked, with the next checkpoint; the other when it starts.
    await two.stop()
    for agent in agents:
        agent.home.witness.write_bytes(b"\0" * 300)
    await rename(installation, machine, "other")
    await signed(installation, tenant)
    await two.start()
    for agent in agents:
        assert "lost" in await alarm_of(installation, agent.identity.machine)
        assert agent.home.witness.with_name("witness.1").read_bytes() == b"\0" * 300
    # They go on as witnesses of what comes.
    await rename(installation, machine, "another")
    size = await signed(installation, tenant)
    for agent in agents:
        await kept(agent, size)
    asked = ("witness", "all", "--tenant", "acme", "--yes", "--output", "json")
    code, _, said = await typed(installation, capsys, *asked)
    assert code == 1
    assert said.count("lost since") == 4
    assert (await typed(installation, capsys, "reset", "all", "--tenant", "acme", "--yes"))[0] == 0
    await rename(installation, machine, "again")
    await signed(installation, tenant)
    for agent in agents:
        await no_alarm_of(installation, agent.identity.machine)


async def test_a_checkpoint_that_a_full_disk_did_not_take_is_no_fork_later(
    installation: Installation, agents: tuple[AgentProcess, AgentProcess]
) -> None:
    one, _ = agents
    tenant, machine = one.identity.tenant, one.identity.machine
    await kept(one, await signed(installation, tenant))
    in_the_way = one.home.witness.with_name(".witness.new")
    in_the_way.mkdir()
    await rename(installation, machine, "other")
    await signed(installation, tenant)
    await one.until(
        lambda: next((e for e in one.events() if e["event"] == "checkpoint_not_kept"), None)
    )
    in_the_way.rmdir()
    await rename(installation, machine, "another")
    await kept(one, await signed(installation, tenant))
    from agent.witness.keep import load_watched

    assert load_watched(one.home).alarms == {}


async def test_a_machine_enrolled_anew_for_another_tenant_watches_that_ones_log(
    installation: Installation, agents: tuple[AgentProcess, AgentProcess]
) -> None:
    one, _ = agents
    await kept(one, await signed(installation, one.identity.tenant))
    await one.stop()
    other = await installation.add_tenant("other")
    token = await token_text(installation, other)
    code, out, err = await one.command("enroll", "--force", "--token", "-", stdin=token + "\n")
    assert code == 0, (out, err)
    assert one.identity.tenant == other
    await one.start()
    await kept(one, await signed(installation, other))
    await one.until_status(link="connected")
    assert one.home.witness.with_name("witness.1").exists()


async def test_a_log_written_anew_is_found_by_the_machines_and_told(
    installation: Installation, agents: tuple[AgentProcess, AgentProcess]
) -> None:
    one, two = agents
    tenant, machine = one.identity.tenant, one.identity.machine
    size = await signed(installation, tenant)
    for agent in agents:
        await kept(agent, size)
    await rename(installation, machine, "other")
    size = await signed(installation, tenant)
    for agent in agents:
        await kept(agent, size)
    db = installation.controller.parts.db
    await two.stop()
    await db.write(lambda c: rewrite(c, tenant, 2))
    await signed(installation, tenant)
    await rename(installation, machine, "another")
    await signed(installation, tenant)
    assert "forked" in await alarm_of(installation, machine)
    code, out, _ = await one.command("status", "--output", "json")
    assert code == 0
    assert "another history" in json.loads(out)["audit_alarms"][0]
    code, out, _ = await one.command("doctor")
    assert code == 1
    assert "tell whoever runs the installation" in out
    # One that was away finds it when it comes back.
    await two.start()
    assert "forked" in await alarm_of(installation, two.identity.machine)
    raised = await db.read(
        lambda c: (
            c.scalars(select(audit.c.actor).where(audit.c.event == "audit_alarm_raised"))
            .unique()
            .all()
        )
    )
    assert set(raised) == {f"machine/{agent.identity.machine}" for agent in agents}


async def typed(
    installation: Installation, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Run a `stead audit` command as the first administrator."""
    start = ["--home", str(installation.home), "--controller", installation.link_address, "audit"]
    code = await asyncio.to_thread(run, [*start, *words])
    said = capsys.readouterr()
    return code, said.out, said.err


async def test_operators_export_verify_and_ask_the_witnesses(
    installation: Installation,
    agents: tuple[AgentProcess, AgentProcess],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, _ = agents
    tenant, machine = one.identity.tenant, one.identity.machine
    await rename(installation, machine, "other")
    size = await signed(installation, tenant)
    for agent in agents:
        await kept(agent, size)
    whole, part = tmp_path / "acme.audit", tmp_path / "part.audit"
    export = ("export", "--tenant", "acme", "--output-file")
    assert (await typed(installation, capsys, *export, str(whole)))[0] == 0
    assert (await typed(installation, capsys, *export, str(whole)))[0] == 1
    choice = ("--event", "machine_enrolled")
    assert (await typed(installation, capsys, *export, str(part), *choice))[0] == 0
    code, out, _ = await typed(
        installation, capsys, "ls", "--tenant", "acme", *choice, "-o", "json"
    )
    assert (code, len(json.loads(out))) == (0, 2)
    for file in (whole, part):
        code, out, said = await typed(installation, capsys, "verify", "--from", str(file))
        assert code == 0, (out, said)
    table = tmp_path / "acme.csv"
    assert (await typed(installation, capsys, *export, str(table), "--format", "csv"))[0] == 0
    assert table.read_text().startswith("sequence,at,actor,event,body,hash")
    asked = ("witness", "all", "--tenant", "acme", "--yes", "--output", "json")
    # Without the tenant's key nobody can tell the answers from what a controller could make.
    assert (await typed(installation, capsys, *asked))[0] == 3
    keys = Keyring(installation.made.operator.path / "tenants")
    keys.save(tenant, TenantKeys((TENANT_KEY,)))
    code, out, said = await typed(installation, capsys, *asked)
    assert code == 0, (out, said)
    assert {row["log"]: row["witnesses"] for row in json.loads(out)}["acme"] == 2
    # A profile that has seen nothing finds by the witnesses what it could not find alone.
    await installation.controller.parts.db.write(lambda c: rewrite(c, tenant, 2))
    for head in (installation.home / "operator" / "audit").iterdir():
        head.unlink()
    assert (await typed(installation, capsys, "verify", "--tenant", "acme"))[0] == 0
    code, out, said = await typed(installation, capsys, *asked)
    assert code == 1, (out, said)
    row = next(row for row in json.loads(out) if row["log"] == "acme")
    assert "keeps" in row["reason"]
    assert (await typed(installation, capsys, "reset", "all", "--tenant", "acme", "--yes"))[0] == 0
    assert (await typed(installation, capsys, "verify", "--from", str(whole)))[0] in {0, 3}
