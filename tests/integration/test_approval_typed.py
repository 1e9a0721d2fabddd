"""Two operators as they type it: a real controller, a real agent, and `stead` for each person."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocol.ids import TenantId
from tests.integration.agent_process import token_text
from tests.integration.commands import stead
from tests.integration.conftest import Installation
from tests.integration.test_standing_order import ImpatientAgent, ran, standing


@dataclass
class Office:
    """A tenant with one machine, and the people who look after it."""

    installation: Installation
    tenant: TenantId
    agent: ImpatientAgent
    directory: Path

    async def add(self, name: str, role: str, *more: str) -> None:
        home = str(self.directory / name)
        await stead(self.installation, "operator", "add", name, "--role", role, "--to", home, *more)

    async def typed(self, who: str, *words: str, code: int = 0, error: bool = False) -> str:
        """What somebody's command printed; `error`: what it said on standard error."""
        home = self.directory / who
        return await stead(self.installation, *words, code=code, error=error, home=home)

    async def ordered(self, who: str, *words: str) -> str:
        """The job of an order that awaits a signature."""
        [row] = json.loads(await self.typed(who, *words, code=4))
        assert row["awaiting"]
        return str(row["job"])

    async def state(self, job: str) -> Any:
        shown = json.loads(await self.typed("ann", "job", "show", job, "-o", "json"))
        [task] = shown["tasks"]
        return task

    async def rule(self, text: str) -> None:
        path = self.directory / "policy.toml"
        path.write_text(f'tenant = "acme"\n{text}')
        await stead(self.installation, "policy", "apply", str(path), "--yes")

    @property
    def effects(self) -> str:
        path = self.directory / "effects"
        return path.read_text() if path.exists() else ""

    def leaving(self, mark: str) -> tuple[str, ...]:
        """An action that leaves a mark."""
        return ("-o", "json", "--", "sh", "-c", f"echo {mark} >> {self.directory}/effects")


@pytest.fixture
async def office(installation: Installation, tmp_path: Path) -> AsyncIterator[Office]:
    tenant = await installation.add_tenant()
    agent = ImpatientAgent(tmp_path / "machine")
    await agent.enroll(await token_text(installation, tenant))
    await agent.start()
    await agent.until_status(link="connected")
    made = Office(installation, tenant, agent, tmp_path)
    for name, role in (("hal", "helpdesk"), ("ann", "technician"), ("bob", "technician")):
        await made.add(name, role)
    yield made
    if agent.alive:
        await agent.stop()


async def test_the_help_desk_proposes_a_technician_approves_and_the_machine_does_it(
    office: Office,
) -> None:
    words = ("run", "all", *office.leaving("proposed"))
    assert "hand it in with --propose" in await office.typed("hal", *words, code=4, error=True)
    job = await office.ordered("hal", "run", "all", "--propose", *office.leaving("proposed"))
    [listed] = json.loads(
        await office.typed("ann", "job", "ls", "--state", "awaiting", "-o", "json")
    )
    assert (listed["job"], listed["operator"]) == (job, "hal")

    # Nobody may approve it who may not order it, nor without having been asked.
    await office.installation.add_tenant("other")
    await office.add("eve", "admin", "--tenant", "other")
    await office.add("aud", "auditor")
    for who, code, why in (
        ("hal", 4, "hal has signed"),
        ("aud", 4, "auditor may not read orders whole"),
        ("eve", 1, "there is no job"),
    ):
        said = await office.typed(who, "job", "approve", job, "--yes", code=code, error=True)
        assert why in said
    assert "Nobody is there to ask" in await office.typed(
        "ann", "job", "approve", job, code=2, error=True
    )
    shown = json.loads(await office.typed("ann", "job", "approve", job, "--dry-run", "-o", "json"))
    assert shown["run_program.argv"][:2] == ["sh", "-c"]
    assert shown["proposed_by"] == ["hal (helpdesk)"]
    assert shown["machine_ids"] == [office.agent.identity.machine]
    assert office.effects == ""

    approve = ("job", "approve", job, "--yes", "--wait", "-o", "json")
    [task] = json.loads(await office.typed("ann", *approve))
    assert (task["state"], office.effects) == ("succeeded", "proposed\n")
    again = await office.typed("bob", "job", "approve", job, "--yes", code=1, error=True)
    assert "does not wait for a signature" in again
    events = [(e.actor, e.event) for e in await office.installation.audit(office.tenant)]
    assert [one for one in events if one[1] in {"order_submitted", "order_approved"}] == [
        ("operator/hal", "order_submitted"),
        ("operator/ann", "order_approved"),
    ]

    # What was rejected, and what was taken back, is done by nobody.
    words = ("run", "all", "--propose", *office.leaving("never"))
    for who, verb in (("ann", "reject"), ("hal", "cancel")):
        job = await office.ordered("hal", *words)
        await office.typed(who, "job", verb, job, "--yes")
        assert (await office.state(job))["state"] in {"rejected", "cancelled"}
        await office.typed("ann", "job", "approve", job, "--yes", code=1)
    assert office.effects == "proposed\n"


async def test_the_help_desk_reads_whole_what_it_signed_itself(office: Office) -> None:
    failing = ("run", "all", "-o", "json", "--", "false")
    [own] = json.loads(await office.typed("ann", *failing, code=1))
    said = await office.typed("hal", "job", "retry", own["job"], code=4, error=True)
    assert "hal is helpdesk and reads no orders of others whole" in said
    proposed = await office.ordered("hal", "run", "all", "--propose", *failing[2:])
    await office.typed("ann", "job", "approve", proposed, "--yes", "--wait", code=1)
    words = ("job", "retry", proposed, "--propose", "-o", "json")
    await office.ordered("hal", *words)
    said = await office.typed("hal", "job", "resume", own["job"], code=4, error=True)
    assert "helpdesk may not resume halted rollouts" in said
    put = ("file", "put", "all", str(office.directory / "policy"), "/tmp/x", "--propose")
    (office.directory / "policy").write_text("x")
    said = await office.typed("hal", *put, code=4, error=True)
    assert "files are put and got by technicians and admins alone" in said


async def test_above_the_limit_it_takes_two_beside_whoever_proposed(office: Office) -> None:
    await office.rule("[action.run_program]\nsecond_above = 0\n")
    job = await office.ordered("ann", "run", "all", *office.leaving("two"))
    said = await office.typed("ann", "job", "approve", job, "--yes", code=4, error=True)
    assert "ann has signed" in said
    await office.typed("bob", "job", "approve", job, "--yes", "--wait")
    assert office.effects == "two\n"

    job = await office.ordered("hal", "run", "all", "--propose", *office.leaving("three"))
    said = await office.typed("ann", "job", "approve", job, "--yes", error=True)
    assert "still awaits 1 more" in said
    assert (await office.state(job))["state"] == "awaiting"
    await office.typed("bob", "job", "approve", job, "--yes", "--wait")
    assert office.effects == "two\nthree\n"


async def test_nobody_signs_under_a_policy_that_asks_for_more_than_the_order_names(
    office: Office,
) -> None:
    """A controller could keep the newer one from the machine, which would ask for one."""
    await office.rule("[action.run_program]\nsecond_above = 10\n")
    job = await office.ordered("hal", "run", "all", "--propose", *office.leaving("one"))
    await office.rule("[action.run_program]\nsecond_above = 0\n")
    said = await office.typed("ann", "job", "approve", job, "--yes", code=4, error=True)
    assert "version 2 of the tenant's policy wants 1 more" in said
    assert "have it ordered again" in said
    assert (await office.state(job))["state"] == "awaiting"
    assert office.effects == ""


async def test_a_standing_order_of_what_takes_two_is_run_once_both_have_signed(
    office: Office,
) -> None:
    await office.rule("[action.run_program]\nsecond_above = 0\nlongest_days = 100\n")
    bounds = ("--every", "daily", "--name", "tidy")
    long = ("run", "all", *bounds, "--until", "200d", *office.leaving("long"))
    assert "ends within 100 days" in await office.typed("ann", *long, code=4, error=True)
    words = ("run", "all", *bounds, "--until", "90d", *office.leaving("run"))
    job = await office.ordered("ann", *words)
    assert json.loads(await office.typed("ann", "order", "ls", "-o", "json")) == []
    said = await office.typed("ann", "order", "revoke", "tidy", "--yes", code=1, error=True)
    assert "there is no standing order 'tidy'" in said
    assert not list(office.agent.home.standing.glob("or_*"))
    shown = json.loads(await office.typed("bob", "job", "approve", job, "--dry-run", "-o", "json"))
    assert "again and again (daily)" in shown["standing"]
    assert "called tidy" in shown["standing"]

    nameless = ("run", "all", "--every", "daily", "--until", "90d", *office.leaving("other"))
    other = await office.ordered("ann", *nameless)
    for one in (job, other):
        await office.typed("bob", "job", "approve", one, "--yes", "--wait")
    machine = await standing(office.installation, job)
    assert (machine.state, machine.runs, office.effects) == ("in force", 0, "")
    office.agent.taken_in_earlier(job)
    machine = await ran(office.installation, job, "succeeded")
    assert (machine.runs, office.effects) == (1, "run\n")

    # Both signatures are verified again before each run: one of a stolen key ends it.
    await stead(office.installation, "operator", "revoke", "bob", "--since", "2020-01-01", "--yes")
    await office.agent.until(lambda: office.agent.home.revocations.exists() or None)
    office.agent.taken_in_earlier(other)
    machine = await ran(office.installation, other, "rejected")
    assert (machine.runs, office.effects) == (0, "run\n")
    told = json.loads(await office.typed("ann", "job", "show", machine.last_job_id, "-o", "json"))
    assert told["tasks"][0]["code"] == "revoked"
    # What ends it takes one operator, whoever proposed that.
    ending = await office.ordered("hal", "order", "revoke", "tidy", "--propose", "-o", "json")
    assert (await standing(office.installation, job)).state == "in force"
    await office.typed("ann", "job", "approve", ending, "--yes", "--wait")
    assert (await standing(office.installation, job)).state == "revoked"
