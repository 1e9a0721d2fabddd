"""A log that was cut at its end is found out by whoever verified it before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from controller import clock
from controller.audit.chain import Entry
from controller.audit.log import append
from controller.cli.audit import checking as audit_checking
from controller.cli.main import run
from controller.db.schema import audit
from protocol.errors import UnavailableError
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from tests.integration.conftest import Installation

AT = datetime(2026, 5, 1, tzinfo=UTC)


async def verified(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    words = ["--home", str(installation.home), "--controller", installation.link_address]
    code = await asyncio.to_thread(run, [*words, "audit", "verify", "--output", "json"])
    return code, capsys.readouterr().out


async def test_a_log_of_large_entries_is_read_in_pages_that_a_message_holds(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant = await installation.add_tenant()
    db = installation.controller.parts.db
    body = {"machines": [f"mc_{number:026}" for number in range(30_000)]}
    for _ in range(30):
        await db.write(lambda c: append(c, tenant, "operator/ann", "order_submitted", body, AT))
    assert (await verified(installation, capsys))[0] == 0
    words = ["--home", str(installation.home), "--controller", installation.link_address, "audit"]
    for more in ([], ["--event", "order_submitted"]):
        file = tmp_path / f"file-{len(more)}"
        export = ["export", "--tenant", "acme", "--output-file", str(file), *more]
        assert await asyncio.to_thread(run, [*words, *export]) == 0
        assert await asyncio.to_thread(run, [*words, "verify", "--from", str(file)]) == 0
    capsys.readouterr()


async def test_the_status_names_a_log_that_cannot_be_signed(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    parts = installation.controller.parts
    await parts.checkpoints.make(machine.tenant)

    async def status() -> list[str]:
        words = ["--home", str(installation.home), "--controller", installation.link_address]
        words += ["controller", "status", "--output", "json"]
        capsys.readouterr()
        assert await asyncio.to_thread(run, words) == 0
        return list(json.loads(capsys.readouterr().out)["audit_unsigned"])

    assert await status() == []
    edited = update(audit).where(audit.c.tenant_id == machine.tenant, audit.c.seq == 1)
    await parts.db.write(lambda c: c.execute(edited.values(hash=bytes(32))).rowcount)
    await parts.db.write(
        lambda c: append(c, machine.tenant, "operator/ann", "seen", {}, clock.now())
    )
    await parts.checkpoints.make(machine.tenant)
    [said] = await status()
    assert said.startswith("acme: 1 of ")
    assert "not what was signed" in said
    # `verify` finds the edit itself, and says that what follows is not signed.
    assert (await verified(installation, capsys))[0] == 1


async def test_entries_that_the_controller_does_not_sign_are_named(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tenant = await installation.add_tenant()
    parts = installation.controller.parts
    first = await parts.checkpoints.make(tenant)
    assert first is not None
    await parts.db.write(lambda c: append(c, tenant, "operator/ann", "seen", {}, clock.now()))

    async def keep_to_the_first(_: object, log_id: str) -> object:
        return first if log_id == tenant else None

    monkeypatch.setattr(type(parts.checkpoints), "make", keep_to_the_first)
    code, said = await verified(installation, capsys)
    assert code == 1
    states = {row["log"]: (row["state"], row["signed"]) for row in json.loads(said)}
    assert states["acme"] == ("unsigned", first.checkpoint.size)


async def test_a_log_that_does_not_hold_is_exported_as_evidence_and_said_to_be(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    parts = installation.controller.parts
    await parts.checkpoints.make(machine.tenant)
    edited = update(audit).where(audit.c.tenant_id == machine.tenant, audit.c.seq == 2)
    await parts.db.write(lambda c: c.execute(edited.values(body="{}")).rowcount)
    words = ["--home", str(installation.home), "--controller", installation.link_address, "audit"]
    for number, more in enumerate(([], ["--event", "token_created"])):
        file = tmp_path / f"file-{number}"
        export = ["export", "--tenant", "acme", "--output-file", str(file), *more]
        assert await asyncio.to_thread(run, [*words, *export]) == 1
        assert "entry 2: the entry was altered" in capsys.readouterr().err.replace("\n", " ")
        assert await asyncio.to_thread(run, [*words, "verify", "--from", str(file)]) == 1


async def test_a_controller_that_goes_away_is_no_damage(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await installation.new_machine(await installation.add_tenant())

    def goes_away(*_: object, **__: object) -> Iterator[Entry]:
        raise UnavailableError("the controller went away")

    monkeypatch.setattr(audit_checking, "read_entries", goes_away)
    assert (await verified(installation, capsys))[0] == 6
    assert not list((installation.made.operator.path / "audit").glob("*.told"))


async def test_a_machine_is_meant_by_its_name_within_the_tenant_of_the_log(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("acme", "other"):
        await installation.new_machine(await installation.add_tenant(name), "web-01")
    words = ["--home", str(installation.home), "--controller", installation.link_address, "audit"]
    words += ["ls", "--machine", "web-01", "--output", "json"]
    capsys.readouterr()
    assert await asyncio.to_thread(run, [*words, "--tenant", "other"]) == 0
    [enrolled] = json.loads(capsys.readouterr().out)
    assert enrolled["event"] == "machine_enrolled"
    assert await asyncio.to_thread(run, words) == 2


async def test_a_log_cut_at_its_end_is_noticed_at_the_next_look(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    await MachineServiceStub(installation.admin()).RenameMachine(
        operator_pb2.RenameMachineRequest(machine_id=machine.id, name="other")
    )
    assert (await verified(installation, capsys))[0] == 0
    db = installation.controller.parts.db
    mine = audit.c.tenant_id == machine.tenant
    last = await db.read(lambda c: max(c.scalars(select(audit.c.seq).where(mine))))
    await db.write(lambda c: c.execute(delete(audit).where(mine, audit.c.seq == last)).rowcount)
    for _ in range(2):
        code, said = await verified(installation, capsys)
        assert code == 1
        assert f"the log ends before entry {last}, seen before" in said
