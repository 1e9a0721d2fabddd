"""What is much is listed, ended and gone on with all the same, and nothing is left out unsaid."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller import clock
from controller.audit import log as audit_log
from controller.audit.log import append
from controller.cli.audit import reading as audit_reading
from controller.fleet import history
from controller.jobs import reading, standing_views
from protocol.action import CollectInventory, ControlPower, RunProgram
from protocol.codec import to_ms
from protocol.errors import Code
from protocol.identity import Role
from protocol.rollout import Amount, Rollout, parse_batches
from protocol.standing import Standing
from protocol.v1 import job_pb2, link_pb2, operator_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.operator_pb2 import RetireMachineRequest
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from tests.integration.commands import stead
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refused
from tests.integration.test_inventory_report import FIRST, Reporter, body
from tests.integration.test_job_sizes import RESULT, ended
from tests.integration.test_link import enveloped, job_of, linked, order_for, submit
from tests.integration.test_rollout import ordered, until


@pytest.fixture
async def fleet(installation: Installation) -> list[Enrolled]:
    """Machines of one tenant, none of them linked."""
    tenant = await installation.add_tenant()
    return [await installation.new_machine(tenant, f"m{number}") for number in range(3)]


async def rows(installation: Installation, *words: str, code: int = 0) -> Any:
    return json.loads(await stead(installation, *words, "--output", "json", code=code))


async def retire(installation: Installation, machine: Enrolled) -> None:
    request = RetireMachineRequest(machine_id=machine.id)
    await MachineServiceStub(installation.admin()).RetireMachine(request)


async def test_however_much_machines_gave_back_a_job_is_watched_resumed_and_cancelled(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    rollout = Rollout(parse_batches("2,100%"), max_failures=Amount(machines=1))
    job = (await ordered(installation, fleet, rollout)).job_id
    for machine in fleet[:2]:
        async with linked(installation, machine) as agent:
            task = (await agent.hear("task_offer")).task_id
            await ended(agent, task, state=link_pb2.OUTCOME_STATE_FAILED, result=RESULT)
    await until(installation, job, lambda r: r.phase == "halted", without_results=True)
    watched = await rows(installation, "job", "watch", job, code=1)
    assert [task["state"] for task in watched] == ["failed", "failed", "waiting"]
    assert "failed" in await stead(installation, "job", "show", job)
    resumed = await rows(installation, "job", "resume", job, "--no-wait")
    assert resumed[0]["rollout"]["phase"] == "rolling"
    cancelled = await rows(installation, "job", "cancel", job)
    assert [task["state"] for task in cancelled] == ["failed", "failed", "cancelled"]


async def test_what_is_cancelled_is_cancelled_beside_a_machine_that_was_retired(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    order = order_for(fleet[0].tenant, *fleet[:2], action=RunProgram(("sleep", "9")))
    job = (await submit(installation, enveloped(installation, order))).job_id
    for machine in fleet[:2]:
        async with linked(installation, machine) as agent:
            await agent.hear("task_offer")
    await retire(installation, fleet[1])
    said = await stead(installation, "job", "cancel", job, "--no-wait", error=True)
    assert "left out: m1" in said
    [listed] = await rows(installation, "job", "ls", "--state", "queued")
    assert listed["action"] == "cancel_order"
    assert listed["machines"] == 1


async def test_what_failed_on_machines_that_were_retired_is_not_ordered_again(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    order = order_for(fleet[0].tenant, fleet[0])
    job = (await submit(installation, enveloped(installation, order))).job_id
    async with linked(installation, fleet[0]) as agent:
        offer = await agent.hear("task_offer")
        await ended(agent, offer.task_id, state=link_pb2.OUTCOME_STATE_FAILED)
    await retire(installation, fleet[0])
    said = await stead(installation, "job", "retry", job, code=1, error=True)
    assert said.splitlines()[-1].startswith("error: none of the machines is in use any more")


async def test_no_job_is_left_out_of_a_listing_however_many_tasks_there_are(
    installation: Installation, fleet: list[Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LISTED", 1)
    for _ in range(3):
        order = order_for(fleet[0].tenant, *fleet, action=CollectInventory())
        await submit(installation, enveloped(installation, order))
    listed = await rows(installation, "job", "ls")
    assert [(job["machines"], job["states"]) for job in listed] == [(3, {"queued": 3})] * 3
    jobs = JobServiceStub(installation.admin())
    request = job_pb2.ListJobsRequest(counted=True, machine_id=fleet[1].id)
    of_one = (await jobs.ListJobs(request)).jobs
    assert [[task.machine_id for task in job.tasks] for job in of_one] == [[fleet[1].id]] * 3
    # Who does not have them counted gets as many as fit, and one at least.
    assert len((await jobs.ListJobs(job_pb2.ListJobsRequest())).jobs) == 1


async def test_every_restart_that_waits_is_found_and_cancelled(
    installation: Installation, fleet: list[Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LISTED", 1)
    waiting = []
    for machine in fleet[:2]:
        order = order_for(machine.tenant, machine, action=ControlPower("reboot", "", 300))
        waiting.append((await submit(installation, enveloped(installation, order))).job_id)
    words = ("power", "reboot", "m0 or m1", "--cancel", "--yes")
    cancelled = await rows(installation, *words)
    assert sorted(row["job"] for row in cancelled) == sorted(waiting)
    assert {row["state"] for row in cancelled} == {"cancelled"}


async def test_every_standing_order_is_listed_and_found_by_its_name(
    installation: Installation, fleet: list[Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_views, "LISTED", 2)
    made = []
    for number in range(5):
        ends = to_ms(clock.now() + timedelta(days=9))
        standing = Standing("hourly", ends, name=f"tidy-{number}")
        order = order_for(fleet[0].tenant, *fleet, action=CollectInventory())
        await submit(installation, enveloped(installation, replace(order, standing=standing)))
        made.append(order.id)
    # The newest are in force nowhere any more: they leave a page empty, and no listing.
    jobs = JobServiceStub(installation.admin())
    for order_id in made[3:]:
        await jobs.CancelJob(job_pb2.CancelJobRequest(job_id=order_id))
    listed = await rows(installation, "order", "ls")
    assert [row["name"] for row in listed] == ["tidy-2", "tidy-1", "tidy-0"]
    assert len(await rows(installation, "order", "ls", "--all")) == 5
    assert (await rows(installation, "order", "show", "tidy-0"))["order"] == made[0]


@pytest.mark.parametrize("most", [1, 2, 500])
async def test_every_machine_that_is_asked_for_is_told_about(
    installation: Installation,
    fleet: list[Enrolled],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    monkeypatch.setattr(standing_views, "MOST_NAMED", most)
    monkeypatch.setattr(standing_views, "MOST_MACHINES", 2)
    standing = Standing("hourly", to_ms(clock.now() + timedelta(days=9)))
    for machines in (fleet, fleet[:1], fleet[2:]):
        order = order_for(fleet[0].tenant, *machines, action=CollectInventory())
        await submit(installation, enveloped(installation, replace(order, standing=standing)))
    found = await rows(installation, "order", "ls", "m0 or m1")
    assert [row["machine"] for row in found] == ["m0", "m0", "m1"]


async def test_as_many_entries_are_shown_as_were_asked_for(
    installation: Installation, fleet: list[Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_reading, "PAGE", 3)
    db, tenant = installation.controller.parts.db, fleet[0].tenant
    large = {"text": "x" * (audit_log.MOST_BYTES // 2)}
    for number in range(5):
        said = {} if number % 2 else large
        await db.write(lambda c, b=said: append(c, tenant, "operator/ann", "seen", b, clock.now()))  # type: ignore[misc]
    last = (await db.read(lambda c: audit_log.head(c, tenant))).seq
    everything = list(range(1, last + 1))
    for limit in (1, 2, 4, 5, 100):
        words = ("audit", "ls", "--tenant", "acme", "--limit", str(limit))
        assert [row["sequence"] for row in await rows(installation, *words)] == everything[-limit:]
    words = ("audit", "ls", "--tenant", "acme", "--event", "seen")
    assert [row["sequence"] for row in await rows(installation, *words)] == everything[-5:]


async def test_before_the_first_inventory_the_first_is_taken(
    installation: Installation, fleet: list[Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LARGEST_LIMIT", 2)
    reporter = Reporter(installation, fleet[0])
    now = clock.now()
    for cores in range(1, 5):
        at = to_ms(now - timedelta(hours=9 - cores))
        await reporter.report({"cpu": body("cpu", cores=cores)}, at_ms=at)
    [change] = await rows(installation, "inventory", "diff", "m0", "--since", "30d")
    assert (change["before"], change["after"]) == ({"cores": 1}, {"cores": 4})


async def test_messages_of_a_great_many_tasks_fit_into_an_answer(
    installation: Installation, fleet: list[Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.rpc.jobs.MESSAGES", 30)
    order = order_for(fleet[0].tenant, *fleet, action=CollectInventory())
    job = (await submit(installation, enveloped(installation, order))).job_id
    for machine in fleet:
        async with linked(installation, machine) as agent:
            task = (await agent.hear("task_offer")).task_id
            failed = link_pb2.OUTCOME_STATE_FAILED
            await ended(agent, task, state=failed, message="it did not work")
    shortened = {task.message for task in (await job_of(installation, job)).job.tasks}
    assert shortened == {"it did not…"}
    whole = await rows(installation, "job", "watch", job, code=1)
    assert {task["message"] for task in whole} == {"it did not work"}


async def test_one_machine_is_told_of_without_all_the_others(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    other = await installation.new_machine(await installation.add_tenant("beta"), "m1")
    await Reporter(installation, fleet[1]).report(FIRST)

    async def told(stub: Any = None, **wanted: Any) -> list[operator_pb2.Machine]:
        stub = stub or MachineServiceStub(installation.admin())
        return list((await stub.ListMachines(operator_pb2.ListMachinesRequest(**wanted))).machines)

    for named, meant in (
        (["m1"], {fleet[1].id, other.id}),
        (["acme/m1"], {fleet[1].id}),
        ([fleet[2].id, "m0", "nobody"], {fleet[0].id, fleet[2].id}),
        (["beta/m0"], set()),
    ):
        assert {one.machine_id for one in await told(named=named)} == meant, named
    [whole] = await told(named=["acme/m1"])
    assert (whole.updates, whole.system) == (2, "Debian GNU/Linux 12 (bookworm)")
    [brief] = await told(named=["acme/m1"], brief=True)
    assert (brief.updates, brief.system) == (-1, "")
    assert {one.machine_id for one in await told(tenant_id=other.tenant, named=["m1"])} == {
        other.id
    }
    key, certificate = installation.operator("bob", Role.TECHNICIAN, frozenset({other.tenant}))
    stub = MachineServiceStub(installation.channel(key, certificate))
    assert {one.machine_id for one in await told(stub, named=["m1"])} == {other.id}
    assert await told(stub, named=["acme/m1", fleet[0].id]) == []
    assert (await refused(told(named=["m"] * 1001))).code is Code.INVALID
    assert "there is no machine 'm9'" in await stead(
        installation, "machine", "show", "m9", code=1, error=True
    )
    [row] = await rows(installation, "machine", "ls", "acme/m1")
    assert row["updates"] == 2
