"""Two controllers of one root tell two stories to two operators and to their machines."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.config import render_settings
from controller.app import Controller
from controller.cli.main import run
from controller.cli.operator.keyring import Keyring
from protocol.ids import TenantId
from protocol.v1 import operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from protocol.vault.epochs import TenantKeys
from tests.integration.agent_process import TENANT_KEY, WAIT_S, AgentProcess, token_text
from tests.integration.conftest import Installation
from tests.integration.test_audit_witness import alarm_of, kept, signed, soon

__all__ = ["soon"]


@dataclass
class Side:
    """A controller, an operator who knows no other one, and a machine that is linked to it."""

    at: Installation
    agent: AgentProcess

    @property
    def machine(self) -> str:
        return self.agent.identity.machine

    async def rename(self, machine: str, name: str) -> None:
        request = operator_pb2.RenameMachineRequest(machine_id=machine, name=name)
        await MachineServiceStub(self.at.admin()).RenameMachine(request)

    async def typed(
        self, capsys: pytest.CaptureFixture[str], *words: str
    ) -> tuple[int, list[dict[str, Any]], str]:
        """Run `stead audit` as this side's operator: exit code, rows, what else was said."""
        start = ["--home", str(self.at.home), "--controller", self.at.link_address, "audit"]
        code = await asyncio.to_thread(run, [*start, *words])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else [], said.err


def point(agent: AgentProcess, to: Installation) -> None:
    """Have a stopped agent connect somewhere else."""
    settings = msgspec.structs.replace(
        agent.home.load_settings(),
        link_address=to.link_address,
        enrollment_address=to.enrollment_address,
    )
    agent.home.settings.write_bytes(render_settings(settings))


@pytest.fixture
async def sides(installation: Installation, tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    """An installation that was copied, and each half of it goes on by itself."""
    tenant = await installation.add_tenant()
    keys = Keyring(installation.made.operator.path / "tenants")
    keys.save(tenant, TenantKeys((TENANT_KEY,)))
    agents = AgentProcess(tmp_path / "one"), AgentProcess(tmp_path / "two")
    for agent in agents:
        await agent.enroll(await token_text(installation, tenant))
        await agent.start()
        await kept(agent, await signed(installation, tenant))
        await agent.stop()
    await installation._close_channels()
    await installation.controller.stop(timedelta())
    copied = tmp_path / "copied"
    shutil.copytree(installation.home, copied)
    installation.controller = await Controller.serve(installation.home)
    other = Installation(copied, installation.made, await Controller.serve(copied))
    both = Side(installation, agents[0]), Side(other, agents[1])
    for side in both:
        point(side.agent, side.at)
        await side.agent.start()
        await side.agent.until_status(link="connected")
    yield both
    for side in both:
        if side.agent.alive:
            await side.agent.stop()
    await other.close()


async def part(sides: tuple[Side, Side], tenant: TenantId) -> None:
    """Each side tells its own machine and operator another thing about the same act.

    Both logs get equally long: only so do two checkpoints alone prove a fork. Machines' own
    reports come into the logs meanwhile.
    """
    for side, name in zip(sides, ("quiet", "loud"), strict=True):
        await side.rename(sides[0].machine, name)
    async with asyncio.timeout(WAIT_S):
        for number in count():
            sizes = [await signed(side.at, tenant) for side in sides]
            if len(set(sizes)) == 1:
                for side in sides:
                    await kept(side.agent, sizes[0])
                if sizes == [await signed(side.at, tenant) for side in sides]:
                    return
            else:
                shorter = sides[sizes.index(min(sizes))]
                await shorter.rename(sides[1].machine, f"again-{number}")


async def test_two_operators_who_each_find_nothing_find_the_fork_together(
    sides: tuple[Side, Side], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, _ = sides
    tenant = ann.agent.identity.tenant
    await part(sides, tenant)
    files = tmp_path / "ann.audit", tmp_path / "bob.audit"
    for side, file in zip(sides, files, strict=True):
        code, rows, said = await side.typed(capsys, "verify", "--output", "json")
        assert code == 0, (rows, said)
        export = ("export", "--tenant", "acme", "--output-file", str(file))
        assert (await side.typed(capsys, *export))[0] == 0
        code, rows, said = await side.typed(capsys, "verify", "--from", str(file), "-o", "json")
        assert code == 0, (rows, said)
        # With its own profile alone everything agrees.
        code, rows, said = await side.typed(capsys, "compare", str(file), "-o", "json")
        assert {row["state"] for row in rows if row["log"] == tenant} == {"agrees"}
    # The other's export does not fit what this profile has seen, nor does it when compared.
    code, [row], said = await ann.typed(capsys, "verify", "--from", str(files[1]), "-o", "json")
    assert (code, row["state"]) == (1, "damaged"), said
    for words in ((), ("--root-certificate", str(ann.at.made.operator.root))):
        code, rows, said = await ann.typed(
            capsys, "compare", *map(str, files), *words, "-o", "json"
        )
        assert code == 1, said
        forked = [row for row in rows if row["source"] in map(str, files)]
        assert {row["state"] for row in forked} == {"forked"}
        parted = [row["reason"] for row in forked if "from entry" in row["reason"]]
        assert parted, rows
        assert "machine_renamed by operator/admin here" in parted[0]


async def test_what_machines_keep_proves_the_fork_without_any_log(
    sides: tuple[Side, Side], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = sides
    tenant = ann.agent.identity.tenant
    await part(sides, tenant)
    shown = [str(side.agent.home.witness) for side in sides]
    code, rows, said = await ann.typed(capsys, "compare", *shown, "-o", "json")
    assert code == 1, (rows, said)
    assert [row["state"] for row in rows if row["log"] == tenant] == ["forked", "forked"]
    # What one machine answers, beside the other operator's longer log.
    answer, log = tmp_path / "one.answers", tmp_path / "bob.audit"
    asked = ("witness", "quiet", "--output-file", str(answer), "--output", "json")
    code, rows, said = await ann.typed(capsys, *asked)
    assert code == 0, (rows, said)
    for number in range(5):
        await bob.rename(bob.machine, f"more-{number}")
    await bob.typed(capsys, "export", "--tenant", "acme", "--output-file", str(log))
    code, rows, said = await bob.typed(capsys, "compare", str(answer), str(log), "-o", "json")
    assert code == 1, (rows, said)
    states = {row["source"]: row["state"] for row in rows if row["log"] == tenant}
    assert states == {"quiet keeps": "forked", str(log): "forked"}
    # An answer that was altered is not believed.
    answer.write_bytes(answer.read_bytes().replace(b'"body":"', b'"body":"AAAA', 1))
    code, rows, said = await bob.typed(capsys, "compare", str(answer), str(log), "-o", "json")
    assert (code, rows) == (2, []), said


async def test_a_machine_that_moves_to_the_other_controller_finds_the_fork(
    sides: tuple[Side, Side], capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = sides
    tenant = ann.agent.identity.tenant
    await part(sides, tenant)
    await bob.agent.stop()
    point(bob.agent, ann.at)
    await bob.agent.start()
    assert "forked" in await alarm_of(ann.at, bob.machine)
    asked = ("witness", "all", "--tenant", "acme", "--yes", "--output", "json")
    code, rows, said = await ann.typed(capsys, *asked)
    assert code == 1, (rows, said)
    assert "alarm: " in said
    # Its own file alone holds the evidence: what it kept and what it was told.
    code, rows, said = await ann.typed(capsys, "compare", str(bob.agent.home.witness), "-o", "json")
    assert code == 1, (rows, said)
    states = {row["source"].split(" at ")[0]: row["state"] for row in rows if row["log"] == tenant}
    assert set(states) >= {"witness kept", "witness was told"}
