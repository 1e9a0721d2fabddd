"""Orders on their way: a synthetic agent speaks the link over real mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from controller import clock
from controller.db.schema import jobs, tasks
from controller.jobs import progress
from controller.jobs.desk import JobDesk
from controller.jobs.state import PRESUMED
from controller.rpc.refusals import METADATA_KEY
from protocol.action import Action, RunProgram, TakeSnapshot
from protocol.codec import (
    encode_envelope,
    encode_order,
    from_ms,
    outcome_to_pb,
    refusal_from_pb,
    to_ms,
)
from protocol.errors import Code
from protocol.identity import Role
from protocol.ids import OrderId, TaskId, TenantId
from protocol.order import MAX_ENVELOPE_BYTES, Envelope, Order, sign
from protocol.outcome import Outcome, OutcomeState
from protocol.v1 import job_pb2, link_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.link_pb2_grpc import LinkServiceStub
from protocol.v1.refusal_pb2 import Refusal
from tests.integration.conftest import Enrolled, Installation

WAIT_S = 20


def hello(**changes: Any) -> link_pb2.ConnectRequest:
    values: dict[str, Any] = {
        "agent_version": "0.1.0",
        "revision": 1,
        "agent_time_ms": to_ms(clock.now()),
        "sealing_key": bytes(32),
        "sealing_proof": bytes(32),
        "hostname": "web-01",
    }
    return link_pb2.ConnectRequest(hello=link_pb2.Hello(**(values | changes)))


@dataclass
class Agent:
    """One end of a link; what it got that was not asked for waits in `inbox`."""

    call: Any
    inbox: list[link_pb2.ConnectResponse] = field(default_factory=list)

    async def say(self, **message: Any) -> None:
        await self.call.write(link_pb2.ConnectRequest(**message))

    async def hear(self, kind: str, *, within_s: float | None = WAIT_S) -> Any:
        """The next message of a kind; None waits for as long as it takes."""
        for position, waiting in enumerate(self.inbox):
            if waiting.WhichOneof("message") == kind:
                return getattr(self.inbox.pop(position), kind)
        async with asyncio.timeout(within_s):
            while True:
                got = await self.call.read()
                assert got is not grpc.aio.EOF, f"the link ended while waiting for {kind}"
                if got.WhichOneof("message") == kind:
                    return getattr(got, kind)
                self.inbox.append(got)

    async def finish(self, task: str, state: OutcomeState = OutcomeState.SUCCEEDED) -> None:
        now = clock.now()
        outcome = Outcome(TaskId(task), state, started_at=now, ended_at=now)
        await self.say(task_outcome=outcome_to_pb(outcome))
        assert (await self.hear("outcome_acknowledged")).task_id == task


@asynccontextmanager
async def linked(
    installation: Installation, machine: Enrolled, **changes: Any
) -> AsyncIterator[Agent]:
    call = LinkServiceStub(installation.machine_channel(machine)).Connect()
    await call.write(hello(**changes))
    agent = Agent(call)
    await agent.hear("welcome")
    try:
        yield agent
    finally:
        call.cancel()


def order_for(tenant: TenantId, *machines: Enrolled, action: Action | None = None) -> Order:
    now = from_ms(to_ms(clock.now()))
    return Order(
        id=OrderId(clock.new_id("or")),
        tenant=tenant,
        machines=tuple(machine.id for machine in machines),
        action=action or RunProgram(("true",)),
        issued_at=now,
        not_before=now,
        deliver_by=now + timedelta(hours=1),
        timeout=timedelta(minutes=1),
    )


def enveloped(installation: Installation, order: Order) -> bytes:
    return encode_envelope(
        sign(
            encode_order(order),
            key=installation.admin_key,
            certificate=installation.admin_certificate,
        )
    )


async def submit(installation: Installation, envelope: bytes) -> job_pb2.Job:
    request = job_pb2.SubmitOrderRequest(envelope=envelope)
    return (await JobServiceStub(installation.admin()).SubmitOrder(request)).job


async def job_of(installation: Installation, job: str, **changes: Any) -> job_pb2.GetJobResponse:
    request = job_pb2.GetJobRequest(job_id=job, **changes)
    return await JobServiceStub(installation.admin()).GetJob(request)


def code_of(error: grpc.aio.AioRpcError) -> Code:
    for key, value in error.trailing_metadata() or ():
        if key == METADATA_KEY:
            assert isinstance(value, bytes)
            return refusal_from_pb(Refusal.FromString(value)).code
    raise AssertionError(f"no refusal: {error}")


@pytest.fixture
async def machine(installation: Installation) -> Enrolled:
    return await installation.new_machine(await installation.add_tenant())


async def test_an_order_reaches_its_machine_and_its_outcome_the_operator(
    installation: Installation, machine: Enrolled
) -> None:
    async with linked(installation, machine) as agent:
        job = await submit(
            installation, enveloped(installation, order_for(machine.tenant, machine))
        )
        watching = JobServiceStub(installation.admin()).WatchJob(
            job_pb2.WatchJobRequest(job_id=job.job_id)
        )
        offer = await agent.hear("task_offer")
        await agent.say(
            task_started=link_pb2.TaskStarted(
                task_id=offer.task_id, started_at_ms=to_ms(clock.now())
            )
        )
        for sequence in (0, 1, 1):
            await agent.say(
                task_output=link_pb2.TaskOutput(
                    task_id=offer.task_id,
                    sequence=sequence,
                    stream=link_pb2.OUTPUT_STREAM_STDOUT,
                    data=b"piece %d\n" % sequence,
                )
            )
        await agent.finish(offer.task_id)

        printed, states = b"", []
        async with asyncio.timeout(WAIT_S):
            async for event in watching:
                if event.HasField("output"):
                    printed += event.output.data
                else:
                    states.append(event.task.state)
    assert printed == b"piece 0\npiece 1\n"
    assert states[-1] == "succeeded"
    kept = await job_of(installation, job.job_id, with_output=True)
    assert b"".join(piece.data for piece in kept.output) == printed


async def test_an_order_waits_for_a_machine_that_is_away_and_for_a_controller_that_restarts(
    installation: Installation, machine: Enrolled
) -> None:
    job = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    assert [task.state for task in job.tasks] == ["queued"]
    await installation.restart()
    async with linked(installation, machine) as agent:
        first = await agent.hear("task_offer")
    await installation.restart()
    async with linked(installation, machine) as agent:
        second = await agent.hear("task_offer")
        assert (second.task_id, second.envelope) == (first.task_id, first.envelope)
        await agent.finish(second.task_id)
    (task,) = (await job_of(installation, job.job_id)).job.tasks
    assert task.state == "succeeded"


async def test_the_first_outcome_counts_and_a_repeated_one_is_acknowledged(
    installation: Installation, machine: Enrolled
) -> None:
    job = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    async with linked(installation, machine) as agent:
        offer = await agent.hear("task_offer")
        await agent.finish(offer.task_id, OutcomeState.FAILED)
        await agent.finish(offer.task_id, OutcomeState.SUCCEEDED)
    (task,) = (await job_of(installation, job.job_id)).job.tasks
    assert task.state == "failed"


async def test_an_outcome_of_a_task_that_nobody_knows_leaves_a_trace(
    installation: Installation, machine: Enrolled
) -> None:
    task = clock.new_id("ts")
    with capture_logs() as logs:
        async with linked(installation, machine) as agent:
            await agent.finish(task)
    [told] = [line for line in logs if line["event"] == "outcome_of_unknown_task"]
    assert (told["machine"], told["task"], told["state"]) == (machine.id, task, "succeeded")


async def test_an_order_handed_in_twice_is_one_job(
    installation: Installation, machine: Enrolled
) -> None:
    envelope = enveloped(installation, order_for(machine.tenant, machine))
    first, second = await submit(installation, envelope), await submit(installation, envelope)
    assert [t.task_id for t in first.tasks] == [t.task_id for t in second.tasks]


async def test_a_machine_hears_nothing_of_another_ones_tasks_and_cannot_end_them(
    installation: Installation, machine: Enrolled
) -> None:
    other = await installation.new_machine(machine.tenant, "db-01")
    job = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    async with linked(installation, other) as agent:
        await agent.finish(job.tasks[0].task_id)
        assert not [m for m in agent.inbox if m.WhichOneof("message") == "task_offer"]
    (task,) = (await job_of(installation, job.job_id)).job.tasks
    assert task.state == "queued"


async def test_orders_that_no_machine_would_accept_are_refused_at_once(
    installation: Installation, machine: Enrolled
) -> None:
    good = order_for(machine.tenant, machine)
    signed = sign(
        encode_order(good), key=installation.admin_key, certificate=installation.admin_certificate
    )
    edited = replace(good, action=RunProgram(("false",)))
    foreign = await installation.add_tenant("other")
    past = clock.now() - timedelta(hours=2)
    old = replace(good, deliver_by=past, issued_at=past, not_before=past)
    far = replace(good, deliver_by=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    cases = {
        encode_envelope(Envelope(encode_order(edited), signed.signatures)): Code.BAD_SIGNATURE,
        encode_envelope(Envelope(signed.order, ())): Code.BAD_SIGNATURE,
        b"\xff\xff": Code.INVALID,
        enveloped(installation, replace(good, tenant=foreign)): Code.NOT_FOUND,
        enveloped(installation, replace(good, machines=())): Code.INVALID,
        enveloped(installation, old): Code.CLOCK_SKEW,
        enveloped(installation, far): Code.INVALID,
        # Each of its machines would be sent all that an operator puts beside an order.
        encode_envelope(replace(signed, revocations=bytes(MAX_ENVELOPE_BYTES))): Code.INVALID,
        encode_envelope(replace(signed, signatures=signed.signatures * 9)): Code.INVALID,
    }
    for envelope, expected in cases.items():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await submit(installation, envelope)
        assert code_of(caught.value) is expected
    listed = await JobServiceStub(installation.admin()).ListJobs(job_pb2.ListJobsRequest())
    assert not listed.jobs


@pytest.mark.parametrize(
    ("action", "allowed"), [(RunProgram(("id",)), False), (TakeSnapshot(), True)]
)
async def test_the_help_desk_looks_and_does_not_touch(
    installation: Installation, machine: Enrolled, action: Action, allowed: bool
) -> None:
    key, certificate = installation.operator("hilda", Role.HELPDESK)
    order = order_for(machine.tenant, machine, action=action)
    envelope = encode_envelope(sign(encode_order(order), key=key, certificate=certificate))
    stub = JobServiceStub(installation.channel(key, certificate))
    request = job_pb2.SubmitOrderRequest(envelope=envelope)
    if allowed:
        assert (await stub.SubmitOrder(request)).job.action == "take_snapshot"
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SubmitOrder(request)
    assert code_of(caught.value) is Code.DENIED


async def test_an_operator_of_another_tenant_sees_no_job(
    installation: Installation, machine: Enrolled
) -> None:
    job = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    elsewhere = await installation.add_tenant("other")
    stub = JobServiceStub(
        installation.channel(
            *installation.operator("otto", Role.TECHNICIAN, frozenset({elsewhere}))
        )
    )
    assert not (await stub.ListJobs(job_pb2.ListJobsRequest())).jobs
    for call in (
        stub.GetJob(job_pb2.GetJobRequest(job_id=job.job_id)),
        stub.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert code_of(caught.value) is Code.NOT_FOUND


async def test_a_message_that_is_not_understood_is_answered_and_the_link_goes_on(
    installation: Installation, machine: Enrolled
) -> None:
    async with linked(installation, machine) as agent:
        await agent.call.write(link_pb2.ConnectRequest())
        assert (await agent.hear("refusal")).code == Code.INVALID
        await agent.say(heartbeat=link_pb2.Heartbeat(agent_time_ms=to_ms(clock.now())))
        await agent.hear("heartbeat_acknowledged")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"revision": 0}, Code.UPGRADE_REQUIRED),
        ({"agent_time_ms": to_ms(clock.now() - timedelta(days=1))}, Code.CLOCK_SKEW),
        ({"sealing_key": b"short"}, Code.INVALID),
    ],
)
async def test_a_bad_greeting_gets_a_typed_refusal(
    installation: Installation, machine: Enrolled, changes: dict[str, Any], expected: Code
) -> None:
    call = LinkServiceStub(installation.machine_channel(machine)).Connect()
    await call.write(hello(**changes))
    assert code_of(await ended(call)) is expected


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """The error that a stream ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_to_the_end(call)
    return caught.value


async def read_to_the_end(call: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while await call.read() is not grpc.aio.EOF:
            pass


async def test_a_newer_link_takes_the_place_of_the_older(
    installation: Installation, machine: Enrolled
) -> None:
    presence = installation.controller.parts.presence
    async with linked(installation, machine) as older, linked(installation, machine) as newer:
        assert code_of(await ended(older.call)) is Code.LOCKED
        assert presence.linked(machine.id)
        await newer.say(heartbeat=link_pb2.Heartbeat())
        await newer.hear("heartbeat_acknowledged")


async def test_a_controller_that_stops_tells_its_machines_when_to_come_back(
    installation: Installation, machine: Enrolled
) -> None:
    async with linked(installation, machine) as agent:
        stopping = asyncio.create_task(installation.controller.stop())
        assert 1 <= (await agent.hear("drain")).reconnect_within_s <= 60
        await read_to_the_end(agent.call)
        assert await agent.call.code() is grpc.StatusCode.OK
        await stopping
    assert not len(installation.controller.parts.presence)


async def test_what_nobody_will_end_is_ended_and_the_truth_may_come_late(
    installation: Installation, machine: Enrolled
) -> None:
    db = installation.controller.parts.db
    never = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    past = clock.now() - timedelta(hours=1)
    await db.write(
        lambda c: c.execute(
            update(jobs).where(jobs.c.id == never.job_id).values(deliver_by=past)
        ).close()
    )
    assert await db.write(lambda c: progress.sweep(c, clock.now())) == {never.job_id}
    assert (await job_of(installation, never.job_id)).job.tasks[0].state == "expired"

    silent = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    async with linked(installation, machine) as agent:
        offer = await agent.hear("task_offer")
        later = clock.now() + timedelta(hours=25)
        assert await db.write(lambda c: progress.sweep(c, later)) == {silent.job_id}
        query = select(tasks.c.state, tasks.c.code).where(tasks.c.id == offer.task_id)
        row = await db.read(lambda c: c.execute(query).one())
        assert tuple(row) == ("indeterminate", PRESUMED)
        await agent.finish(offer.task_id)
    assert (await job_of(installation, silent.job_id)).job.tasks[0].state == "succeeded"


async def test_cancelling_ends_what_no_machine_has_got(
    installation: Installation, machine: Enrolled
) -> None:
    job = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    request = job_pb2.CancelJobRequest(job_id=job.job_id)
    cancelled = (await JobServiceStub(installation.admin()).CancelJob(request)).job
    assert [task.state for task in cancelled.tasks] == ["cancelled"]
    async with linked(installation, machine) as agent:
        await agent.say(heartbeat=link_pb2.Heartbeat())
        await agent.hear("heartbeat_acknowledged")
        assert not agent.inbox


@pytest.mark.parametrize(
    ("action", "allowed"), [(RunProgram(("id",)), False), (TakeSnapshot(), True)]
)
async def test_who_could_not_order_it_does_not_cancel_it(
    installation: Installation, machine: Enrolled, action: Action, allowed: bool
) -> None:
    order = order_for(machine.tenant, machine, action=action)
    job = await submit(installation, enveloped(installation, order))
    stub = JobServiceStub(installation.channel(*installation.operator("hilda", Role.HELPDESK)))
    request = job_pb2.CancelJobRequest(job_id=job.job_id)
    if allowed:
        assert [task.state for task in (await stub.CancelJob(request)).job.tasks] == ["cancelled"]
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CancelJob(request)
    assert code_of(caught.value) is Code.DENIED
    assert [t.state for t in (await job_of(installation, job.job_id)).job.tasks] == ["queued"]


async def test_a_link_on_which_nothing_can_be_offered_ends(
    installation: Installation, machine: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(JobDesk, "offers", broken)
    call = LinkServiceStub(installation.machine_channel(machine)).Connect()
    await call.write(hello())
    agent = Agent(call)
    await agent.hear("welcome")
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert code_of(caught.value) is Code.INTERNAL
