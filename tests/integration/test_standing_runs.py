"""What machines tell of runs of standing orders, at a real controller: also what is not true."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller import clock
from protocol.action import Action, CollectInventory, RevokeStanding, RunProgram
from protocol.codec import to_ms
from protocol.ids import OrderId
from protocol.outcome import OutcomeState
from protocol.standing import Standing, job_of_run
from protocol.v1 import job_pb2, link_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.integration.conftest import Enrolled, Installation
from tests.integration.test_link import Agent, enveloped, job_of, linked, order_for, submit

HOUR = timedelta(hours=1)
SLOT = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
async def machines(installation: Installation) -> tuple[Enrolled, Enrolled]:
    tenant = await installation.add_tenant()
    return (
        await installation.new_machine(tenant, "web-01"),
        await installation.new_machine(tenant, "web-02"),
    )


async def order(
    installation: Installation, *machines: Enrolled, action: Action | None = None, **bounds: Any
) -> OrderId:
    """Submit a standing order for machines."""
    ends = to_ms(clock.now() + timedelta(days=30))
    standing = Standing("hourly", **{"ends_at_ms": ends, **bounds})
    made = order_for(machines[0].tenant, *machines, action=action)
    await submit(installation, enveloped(installation, replace(made, standing=standing)))
    return made.id


async def tell(
    agent: Agent, order: str, slot: datetime = SLOT, *, number: int = 1, task: str = ""
) -> str:
    """Tell of a run that began; its task's id."""
    task = task or clock.new_id("ts")
    run = link_pb2.StandingRun(order_id=order, slot_ms=to_ms(slot), number=number)
    begun = link_pb2.TaskStarted(task_id=task, started_at_ms=to_ms(clock.now()), run=run)
    await agent.say(task_started=begun)
    return task


async def standing(installation: Installation, **wanted: Any) -> Any:
    jobs = JobServiceStub(installation.admin())
    return (await jobs.ListStanding(job_pb2.ListStandingRequest(**wanted))).orders


async def test_the_runs_of_one_slot_are_one_job_and_what_is_repeated_changes_nothing(
    installation: Installation, machines: tuple[Enrolled, Enrolled]
) -> None:
    made = await order(installation, *machines, name="nightly")
    job = job_of_run(made, SLOT)
    for machine in machines:
        async with linked(installation, machine, revision=3) as agent:
            offer = await agent.hear("task_offer")
            await agent.finish(offer.task_id)
            task = await tell(agent, made)
            await tell(agent, made, task=task)
            await agent.finish(task, OutcomeState.FAILED)
            await tell(agent, made, task=task)
            await agent.finish(task)
    answer = await job_of(installation, job)
    assert [task.state for task in answer.job.tasks] == ["failed", "failed"]
    assert answer.job.standing_order_id == made
    [listed] = await standing(installation)
    assert (dict(listed.counts), len(listed.machines)) == ({"in force": 2}, 0)
    [whole] = await standing(installation, order_id=made)
    assert [(one.runs, one.last_state) for one in whole.machines] == [(1, "failed")] * 2
    entries = await installation.audit(machines[0].tenant)
    assert [entry.event for entry in entries].count("standing_run_told") == 1
    jobs = JobServiceStub(installation.admin())
    envelope = (await jobs.GetOrder(job_pb2.GetOrderRequest(job_id=job))).envelope
    assert envelope == (await jobs.GetOrder(job_pb2.GetOrderRequest(job_id=made))).envelope


async def test_a_machine_tells_of_no_other_s_orders_and_of_nothing_beyond_their_bounds(
    installation: Installation, machines: tuple[Enrolled, Enrolled]
) -> None:
    one, other = machines
    mine = await order(installation, one, max_runs=2)
    theirs = await order(installation, other)
    stranger = await installation.new_machine(await installation.add_tenant("umbrella"))
    foreign = await order(installation, stranger)
    plain = order_for(one.tenant, one)
    await submit(installation, enveloped(installation, plain))
    async with linked(installation, one, revision=3) as agent:
        first = await tell(agent, mine)
        wrong: list[dict[str, Any]] = [
            {"order": theirs},
            {"order": foreign},
            {"order": plain.id},
            {"order": clock.new_id("or")},
            {"order": "nonsense"},
            {"order": mine, "slot": SLOT + HOUR, "number": 3},
            {"order": mine, "slot": SLOT + HOUR, "number": 2**32 - 1},
            {"order": mine, "slot": clock.now() + timedelta(days=31)},
            {"order": mine, "slot": SLOT + HOUR, "task": first},
            {"order": mine, "slot": SLOT + HOUR, "task": "nonsense"},
        ]
        for said in wrong:
            await tell(agent, **said)
            refusal = await agent.hear("refusal")
            assert refusal.code == "invalid", said
    listed = await JobServiceStub(installation.admin()).ListJobs(
        job_pb2.ListJobsRequest(with_runs=True)
    )
    runs = [job.job_id for job in listed.jobs if job.standing_order_id]
    assert runs == [job_of_run(mine, SLOT)]


async def test_what_revokes_is_offered_first_and_a_run_never(
    installation: Installation, machines: tuple[Enrolled, Enrolled]
) -> None:
    machine = machines[0]
    made = await order(installation, machine)
    async with linked(installation, machine, revision=3) as agent:
        await agent.finish((await agent.hear("task_offer")).task_id)
        task = await tell(agent, made)
        await agent.say(heartbeat=link_pb2.Heartbeat())
        await agent.hear("heartbeat_acknowledged")
    later = order_for(machine.tenant, machine, action=CollectInventory())
    await submit(installation, enveloped(installation, later))
    revoking = order_for(machine.tenant, machine, action=RevokeStanding(made))
    await submit(installation, enveloped(installation, revoking))
    [before] = await standing(installation, machine_ids=[machine.id])
    assert [one.state for one in before.machines] == ["revoking"]
    async with linked(installation, machine, revision=3) as agent:
        offered = [await agent.hear("task_offer") for _ in range(2)]
        answers = [await job_of(installation, order.id) for order in (revoking, later)]
        assert [offer.task_id for offer in offered] == [
            answer.job.tasks[0].task_id for answer in answers
        ]
        await agent.finish(offered[0].task_id)
        await agent.say(heartbeat=link_pb2.Heartbeat())
        await agent.hear("heartbeat_acknowledged")
        assert [message.WhichOneof("message") for message in agent.inbox] == []
        await agent.finish(task)
    assert await standing(installation) == []
    [after] = await standing(installation, with_ended=True)
    assert dict(after.counts) == {"revoked": 1}


async def test_bounds_that_machines_would_refuse_are_refused_here(
    installation: Installation, machines: tuple[Enrolled, Enrolled]
) -> None:
    from tests.integration.refusal import refused

    made = order_for(machines[0].tenant, machines[0], action=RunProgram(("true",)))
    for bounds in (
        Standing("often", to_ms(clock.now() + HOUR)),
        Standing("hourly", to_ms(clock.now() - HOUR)),
        Standing("hourly", to_ms(clock.now() + timedelta(days=500))),
    ):
        data = enveloped(installation, replace(made, standing=bounds))
        jobs = JobServiceStub(installation.admin())
        call = jobs.SubmitOrder(job_pb2.SubmitOrderRequest(envelope=data))
        assert (await refused(call)).code == "invalid"
    gone = order_for(machines[0].tenant, machines[0], action=RevokeStanding(made.id))
    jobs = JobServiceStub(installation.admin())
    call = jobs.SubmitOrder(job_pb2.SubmitOrderRequest(envelope=enveloped(installation, gone)))
    assert (await refused(call)).code == "not_found"


async def test_old_runs_are_forgotten_but_for_each_machine_s_last(
    installation: Installation, machines: tuple[Enrolled, Enrolled]
) -> None:
    made = await order(installation, *machines)
    now = clock.now().replace(minute=0, second=0, microsecond=0)
    slots = [now - timedelta(days=days) for days in (200, 100, 50, 20, 1)]
    for machine, told in zip(machines, (slots, slots[:2]), strict=True):
        async with linked(installation, machine, revision=3) as agent:
            for number, slot in enumerate(told, 1):
                task = await tell(agent, made, slot, number=number)
                piece = link_pb2.TaskOutput(
                    task_id=task, stream=link_pb2.OUTPUT_STREAM_STDOUT, data=b"x"
                )
                await agent.say(task_output=piece)
                await agent.finish(task)
    async with linked(installation, machines[0], revision=3) as agent:
        # One that is not over, and not the last either.
        await tell(agent, made, now - timedelta(days=40))
        await agent.say(heartbeat=link_pb2.Heartbeat())
        await agent.hear("heartbeat_acknowledged")

    async def runs() -> set[str]:
        request = job_pb2.ListJobsRequest(standing_order_id=made)
        listed = await JobServiceStub(installation.admin()).ListJobs(request)
        return {job.job_id for job in listed.jobs}

    before = await runs()
    await installation.controller.parts.jobs._forget_runs(now)
    assert len(before) == 6
    assert before - await runs() == {job_of_run(made, slots[0]), job_of_run(made, slots[2])}
    [whole] = await standing(installation, order_id=made)
    assert [one.runs for one in whole.machines] == [5, 2]
    await installation.audit(machines[0].tenant)
