"""A fleet of simulated agents, over real links, through a rollout with failures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from protocol.outcome import OutcomeState
from protocol.rollout import Amount, Rollout, parse_batches
from protocol.v1 import job_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.integration.conftest import Enrolled, Installation
from tests.integration.test_rollout import Hands, at_work, ordered, states, until

BATCHES = "1,10%,50%,100%"


async def enrolled(installation: Installation, count: int) -> list[Enrolled]:
    tenant = await installation.add_tenant()
    token = await installation.add_token(tenant, uses=count)
    return [await installation.enroll(token, f"m{number}.example.com") for number in range(count)]


async def through_a_rollout(
    installation: Installation, fleet: Sequence[Enrolled], *, bad_every: int, limit: Amount
) -> None:
    """Every so many-th machine fails: it halts beyond the limit, goes on, and comes to its end."""
    bad = {machine.id for machine in fleet[::bad_every][1:]}
    hands = Hands(lambda m: OutcomeState.FAILED if m.id in bad else OutcomeState.SUCCEEDED)
    half = Rollout(parse_batches(BATCHES)).batches[2].at_least(len(fleet))
    async with at_work(installation, fleet, hands):
        rollout = Rollout(parse_batches(BATCHES), max_failures=limit)
        job = await ordered(installation, fleet, rollout)
        halted = await until(installation, job.job_id, lambda r: r.phase == "halted")
        at_halt = list(states(halted).values())
        failed = at_halt.count("failed")
        assert failed > limit.at_most(len(fleet))
        assert len(hands.got) <= half
        assert at_halt.count("waiting") >= len(fleet) - half
        assert set(hands.got) <= {machine.id for machine in fleet[:half]}
        stub = JobServiceStub(installation.admin())
        resumes = 0
        while True:
            await stub.ResumeJob(job_pb2.ResumeJobRequest(job_id=job.job_id))
            resumes += 1
            after = await until(installation, job.job_id, lambda r: r.phase in {"halted", "over"})
            if after.rollout.phase == "over":
                break
    assert len(hands.got) == len(set(hands.got)) == len(fleet)
    ended = states(after)
    assert {machine for machine, state in ended.items() if state == "failed"} == bad
    assert set(ended.values()) == {"failed", "succeeded"}
    events = [entry.event for entry in await installation.audit(fleet[0].tenant)]
    assert events.count("rollout_halted") == events.count("rollout_resumed") == resumes
    assert events.count("rollout_over") == 1
    assert events.count("task_ended") == len(fleet)


async def test_a_rollout_to_fifty_machines_halts_as_told(installation: Installation) -> None:
    fleet = await enrolled(installation, 50)
    await through_a_rollout(installation, fleet, bad_every=8, limit=Amount(percent=4))


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_rollout_to_two_hundred_machines_halts_as_told(
    installation: Installation,
) -> None:
    fleet = await enrolled(installation, 200)
    await through_a_rollout(installation, fleet, bad_every=16, limit=Amount(percent=2))
