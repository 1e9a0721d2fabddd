"""A log that was cut at its end is found out by whoever verified it before."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete, select

from controller.cli.main import run
from controller.db.schema import audit
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from tests.integration.conftest import Installation


async def verified(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    words = ["--home", str(installation.home), "--controller", installation.link_address]
    code = await asyncio.to_thread(run, [*words, "audit", "verify", "--output", "json"])
    return code, capsys.readouterr().out


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
