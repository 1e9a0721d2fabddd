"""Rollouts over real links: batches, soak, the limit of failures, and restarts in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc
import pytest
from sqlalchemy import Connection, update

from controller import clock
from controller.db.schema import jobs
from controller.jobs.advance import advance, terms_of, under_way
from controller.jobs.rolling import ROLLOUTS, Rolling
from protocol.action import ControlService
from protocol.errors import Code
from protocol.identity import Role
from protocol.outcome import OutcomeState
from protocol.rollout import Amount, Rollout, parse_batches
from protocol.v1 import job_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refused as refused_call
from tests.integration.test_link import (
    WAIT_S,
    Agent,
    code_of,
    enveloped,
    job_of,
    linked,
    order_for,
    submit,
)

MACHINES = 6


@pytest.fixture
async def fleet(installation: Installation) -> list[Enrolled]:
    """Machines of one tenant, none of them linked."""
    tenant = await installation.add_tenant()
    return [await installation.new_machine(tenant) for _ in range(MACHINES)]


@dataclass
class Hands:
    """Machines that carry out what they are offered as `ends` says, and note who did."""

    ends: Callable[[Enrolled], OutcomeState]
    got: list[str] = field(default_factory=list)

    async def work(self, machine: Enrolled, agent: Agent) -> None:
        while True:
            offer = await agent.hear("task_offer", within_s=None)
            self.got.append(machine.id)
            await agent.finish(offer.task_id, self.ends(machine))


@asynccontextmanager
async def at_work(
    installation: Installation, fleet: Sequence[Enrolled], hands: Hands
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        works = []
        for machine in fleet:
            agent = await stack.enter_async_context(linked(installation, machine))
            works.append(asyncio.create_task(hands.work(machine, agent)))
        try:
            yield
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)


async def until(
    installation: Installation,
    job: str,
    wanted: Callable[[job_pb2.RolloutStatus], bool],
    *,
    without_results: bool = False,
) -> job_pb2.Job:
    """The job once its rollout stands as wanted."""
    watching = JobServiceStub(installation.admin()).WatchJob(job_pb2.WatchJobRequest(job_id=job))
    async with asyncio.timeout(WAIT_S):
        async for event in watching:
            if event.HasField("rollout") and wanted(event.rollout):
                break
    watching.cancel()
    return (await job_of(installation, job, without_results=without_results)).job


def spread(fleet: Sequence[Enrolled], batches: str, **terms: object) -> Rollout:
    return Rollout(parse_batches(batches), **terms)  # type: ignore[arg-type]


def good(_: Enrolled) -> OutcomeState:
    return OutcomeState.SUCCEEDED


def states(job: job_pb2.Job) -> dict[str, str]:
    return {task.machine_id: task.state for task in job.tasks}


async def ordered(
    installation: Installation, fleet: Sequence[Enrolled], rollout: Rollout
) -> job_pb2.Job:
    # One that no second operator has to sign, however many machines there are.
    action = ControlService("nginx", "restart")
    order = replace(order_for(fleet[0].tenant, *fleet, action=action), rollout=rollout)
    return await submit(installation, enveloped(installation, order))


async def test_batches_go_out_one_after_another_in_the_order_that_was_signed(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    hands = Hands(good)
    async with at_work(installation, fleet, hands):
        job = await ordered(installation, fleet, spread(fleet, "1,50%,100%"))
        assert {task.state for task in job.tasks} == {"waiting"}
        done = await until(installation, job.job_id, lambda r: r.phase == "over")
    assert set(states(done).values()) == {"succeeded"}
    ids = [machine.id for machine in fleet]
    assert hands.got[0] == ids[0]
    assert set(hands.got[1:3]) == set(ids[1:3])
    assert set(hands.got[3:]) == set(ids[3:])
    events = [entry.event for entry in await installation.audit(fleet[0].tenant)]
    assert events.count("rollout_batch_begun") == 3
    assert events.count("rollout_over") == 1


async def test_too_many_failures_halt_and_an_operator_lets_it_go_on(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    bad = {machine.id for machine in fleet[:2]}
    hands = Hands(lambda m: OutcomeState.FAILED if m.id in bad else OutcomeState.SUCCEEDED)
    async with at_work(installation, fleet, hands):
        job = await ordered(
            installation, fleet, spread(fleet, "2,4,100%", max_failures=Amount(machines=1))
        )
        halted = await until(installation, job.job_id, lambda r: r.phase == "halted")
        assert "2 of 6 failed, 1 may" in halted.rollout.reason
        assert set(hands.got) == bad
        assert list(states(halted).values()).count("waiting") == 4
        # Until somebody acts there is nothing to decide, and nothing to look at.
        assert await installation.controller.parts.db.read(under_way) == {}
        stub = JobServiceStub(installation.admin())
        resumed = await stub.ResumeJob(job_pb2.ResumeJobRequest(job_id=job.job_id))
        assert resumed.job.rollout.phase == "rolling"
        done = await until(installation, job.job_id, lambda r: r.phase == "over")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ResumeJob(job_pb2.ResumeJobRequest(job_id=job.job_id))
        assert code_of(refused.value) is Code.PRECONDITION
    assert sorted(states(done).values()) == ["failed"] * 2 + ["succeeded"] * 4
    events = [entry.event for entry in await installation.audit(fleet[0].tenant)]
    assert events.count("rollout_halted") == events.count("rollout_resumed") == 1


async def test_a_pause_outlives_a_controller_that_restarts_and_a_cancel_ends_it(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    hands = Hands(good)
    async with at_work(installation, fleet[:3], hands):
        job = await ordered(installation, fleet, spread(fleet, "1,100%", soak_s=3600))
        soaking = await until(installation, job.job_id, lambda r: r.phase == "soaking")
    await installation.restart()
    async with at_work(installation, fleet[:3], hands):
        after = (await job_of(installation, job.job_id)).job
        assert after.rollout.soaked_at_ms == soaking.rollout.soaked_at_ms
        assert hands.got == [fleet[0].id]
        stub = JobServiceStub(installation.admin())
        await stub.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
        done = await until(installation, job.job_id, lambda r: r.phase == "over")
    assert sorted(states(done).values()) == ["cancelled"] * 5 + ["succeeded"]


async def test_a_place_is_for_a_machine_that_is_linked_until_the_last_batch(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    hands = Hands(good)
    job = await ordered(installation, fleet, spread(fleet, "1,2,100%"))
    waiting = await until(installation, job.job_id, lambda r: "to be linked" in r.reason)
    assert set(states(waiting).values()) == {"waiting"}
    async with at_work(installation, [fleet[4]], hands):
        await until(installation, job.job_id, lambda r: r.batch == 2)
        assert hands.got == [fleet[4].id]
        async with at_work(installation, [fleet[5]], hands):
            last = await until(installation, job.job_id, lambda r: r.batch == 3)
            assert hands.got == [fleet[4].id, fleet[5].id]
    assert list(states(last).values()).count("queued") == 4


async def test_who_goes_away_before_the_order_came_gives_the_place_back(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    job = await ordered(installation, fleet, spread(fleet, "1,100%"))
    parts = installation.controller.parts
    terms = await parts.db.read(lambda c: terms_of(c, job.job_id))
    # As if the first machine had a link for a moment, and lost it at once.
    released = await parts.db.write(
        lambda c: advance(c, terms, lambda m: m == fleet[0].id, clock.now())
    )
    assert list(released) == [fleet[0].id]
    parts.jobs.feed.wake(ROLLOUTS)
    hands = Hands(good)
    async with at_work(installation, [fleet[1]], hands):
        begun = await until(installation, job.job_id, lambda r: r.batch == 2)
    assert hands.got == [fleet[1].id]
    assert states(begun)[fleet[1].id] == "succeeded"


async def test_terms_that_make_no_sense_and_those_who_may_not_are_refused(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    for rollout in (
        Rollout(()),
        Rollout((Amount(machines=1),)),
        Rollout((Amount(machines=1, percent=1), Amount(percent=100))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ordered(installation, fleet, rollout)
        assert code_of(refused.value) is Code.INVALID
    job = await ordered(installation, fleet, spread(fleet, "1,100%"))
    helpdesk = JobServiceStub(installation.channel(*installation.operator("h", Role.HELPDESK)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await helpdesk.ResumeJob(job_pb2.ResumeJobRequest(job_id=job.job_id))
    assert code_of(refused.value) is Code.DENIED


async def test_what_has_no_batches_cannot_go_on_with_them(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    job = await submit(installation, enveloped(installation, order_for(fleet[0].tenant, fleet[0])))
    admin = JobServiceStub(installation.admin())
    refusal = await refused_call(admin.ResumeJob(job_pb2.ResumeJobRequest(job_id=job.job_id)))
    assert (refusal.code, str(refusal)) == (
        Code.PRECONDITION,
        f"the job {job.job_id} has no batches",
    )


@pytest.mark.parametrize("damage", [b"", b"\xff", b"cut"])
async def test_a_rollout_that_cannot_be_read_keeps_no_other_one(
    installation: Installation, fleet: list[Enrolled], damage: bytes
) -> None:
    """Of another tenant, above all: one row was damaged, or a later release wrote it."""
    terms = Rollout(parse_batches("1,100%"))
    hands = Hands(lambda _: OutcomeState.SUCCEEDED)
    first, *others = fleet
    spoilt = replace(order_for(first.tenant, first), rollout=terms)
    await submit(installation, enveloped(installation, spoilt))
    order = replace(order_for(first.tenant, *others), rollout=terms)

    def spoil(connection: Connection) -> None:
        connection.execute(update(jobs).where(jobs.c.id == spoilt.id).values(envelope=damage))

    await installation.controller.parts.db.write(spoil)
    rolling = installation.controller.parts.rolling
    rolling._terms.clear()
    async with at_work(installation, others, hands):
        job = (await submit(installation, enveloped(installation, order))).job_id
        done = await until(installation, job, lambda said: said.phase == "over")
    assert {task.state for task in done.tasks} == {"succeeded"}
    assert not installation.controller._rolling.done()


async def test_an_order_that_cannot_be_read_hides_no_other_one(
    installation: Installation, fleet: list[Enrolled]
) -> None:
    readable = await ordered(installation, fleet, spread(fleet, "1,100%"))
    other = await ordered(installation, fleet, spread(fleet, "1,100%"))
    db = installation.controller.parts.db
    later = update(jobs).where(jobs.c.id == other.job_id).values(envelope=b"of a later release")
    await db.write(lambda c: c.execute(later).rowcount)
    stub = JobServiceStub(installation.admin())
    for counted in (True, False):
        listed = (await stub.ListJobs(job_pb2.ListJobsRequest(counted=counted))).jobs
        assert [job.job_id for job in listed] == [other.job_id, readable.job_id]
        assert [job.rollout.batch_sizes for job in listed] == ["", "1,100%"]


async def test_a_mistake_of_ours_over_a_rollout_keeps_no_other_one(
    installation: Installation, fleet: list[Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = Rollout(parse_batches("1,100%"))
    hands = Hands(lambda _: OutcomeState.SUCCEEDED)
    first, *others = fleet
    spoilt = replace(order_for(first.tenant, first), rollout=terms)
    order = replace(order_for(first.tenant, *others), rollout=terms)
    failed, advance_one = list[str](), Rolling._advance

    async def advance_or_fail(rolling: Rolling, job: str) -> None:
        if job == spoilt.id:
            failed.append(job)
            raise OverflowError("date value out of range")
        await advance_one(rolling, job)

    monkeypatch.setattr(Rolling, "_advance", advance_or_fail)
    await submit(installation, enveloped(installation, spoilt))
    async with at_work(installation, others, hands):
        job = (await submit(installation, enveloped(installation, order))).job_id
        done = await until(installation, job, lambda said: said.phase == "over")
    assert {task.state for task in done.tasks} == {"succeeded"}
    assert failed
    assert not installation.controller._rolling.done()
