"""However much machines print and give back, every answer has an end and is in our words."""

from __future__ import annotations

from typing import Any

import pytest

from controller.jobs import progress
from protocol.errors import Code
from protocol.v1 import job_pb2, link_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refused
from tests.integration.test_link import Agent, enveloped, job_of, linked, order_for, submit

MIB = 1 << 20
RESULT = b'{"filler": "' + b"x" * (9 * MIB) + b'"}'


@pytest.fixture
async def machine(installation: Installation) -> Enrolled:
    return await installation.new_machine(await installation.add_tenant())


async def ended(agent: Agent, task: str, **changes: Any) -> None:
    values: dict[str, Any] = {"state": link_pb2.OUTCOME_STATE_SUCCEEDED, "ended_at_ms": 1}
    await agent.say(task_outcome=link_pb2.TaskOutcome(task_id=task, **(values | changes)))
    await agent.hear("outcome_acknowledged")


async def test_a_listing_has_no_results_and_so_an_end(
    installation: Installation, machine: Enrolled
) -> None:
    wanted = []
    async with linked(installation, machine) as agent:
        for _ in range(3):
            order = order_for(machine.tenant, machine)
            wanted.append((await submit(installation, enveloped(installation, order))).job_id)
            await ended(agent, (await agent.hear("task_offer")).task_id, result=RESULT)
    jobs = JobServiceStub(installation.admin())
    listed = (await jobs.ListJobs(job_pb2.ListJobsRequest())).jobs
    assert sorted(job.job_id for job in listed) == sorted(wanted)
    assert {(task.state, task.result) for job in listed for task in job.tasks} == {
        ("succeeded", b"")
    }
    assert (await job_of(installation, wanted[0])).job.tasks[0].result == RESULT


async def test_what_is_too_much_for_one_answer_is_refused_and_can_be_followed(
    installation: Installation, machine: Enrolled
) -> None:
    other = await installation.new_machine(machine.tenant, "web-02")
    order = order_for(machine.tenant, machine, other)
    job = (await submit(installation, enveloped(installation, order))).job_id
    for one in (machine, other):
        async with linked(installation, one) as agent:
            task = (await agent.hear("task_offer")).task_id
            await agent.say(task_started=link_pb2.TaskStarted(task_id=task, started_at_ms=1))
            for number in range(100):
                piece = link_pb2.TaskOutput(
                    task_id=task,
                    sequence=number,
                    stream=link_pb2.OUTPUT_STREAM_STDOUT,
                    data=b"%d" % number,
                )
                await agent.say(task_output=piece)
            await ended(agent, task, result=RESULT)
    refusal = await refused(job_of(installation, job))
    assert refusal.code is Code.LIMIT
    assert f"stead job watch {job}" in str(refusal)
    request = job_pb2.WatchJobRequest(job_id=job)
    call: Any = JobServiceStub(installation.admin()).WatchJob(request)
    events = [event async for event in call]
    assert [e.task.result for e in events if e.HasField("task")] == [RESULT, RESULT]
    printed = [e.output.data for e in events if e.HasField("output")]
    assert printed == [b"%d" % number for number in range(100)] * 2


async def test_output_of_nothing_has_an_end_too(
    installation: Installation, machine: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MAX_OUTPUT_BYTES", 10 * progress.PIECE_COST_BYTES)
    job = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    async with linked(installation, machine) as agent:
        task = (await agent.hear("task_offer")).task_id
        for number in range(30):
            piece = link_pb2.TaskOutput(
                task_id=task, sequence=number, stream=link_pb2.OUTPUT_STREAM_STDOUT
            )
            await agent.say(task_output=piece)
        await ended(agent, task)
    kept = await job_of(installation, job.job_id, with_output=True)
    assert len(kept.output) == 10
    assert kept.job.tasks[0].output_truncated


async def test_numbers_and_words_beyond_all_bounds_end_no_link(
    installation: Installation, machine: Enrolled
) -> None:
    job = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    async with linked(installation, machine) as agent:
        task = (await agent.hear("task_offer")).task_id
        for number in (2**31, 2**63, 2**64 - 1):
            piece = link_pb2.TaskOutput(
                task_id=task, sequence=number, stream=link_pb2.OUTPUT_STREAM_STDOUT
            )
            await agent.say(task_output=piece)
            assert (await agent.hear("refusal")).code == Code.INVALID
        await ended(agent, task, code="c" * MIB, message="m" * MIB, result=b"x" * 17 * MIB)
    kept = (await job_of(installation, job.job_id)).job.tasks[0]
    assert (len(kept.code), kept.result) == (64, b"")
    assert kept.message.startswith(f"its result of {17 * MIB} bytes was not kept. mmm")
    entry = (await installation.audit(machine.tenant))[-1]
    assert entry.event == "task_ended"
    assert len(entry.body) < 1000
