"""Orders that take a second operator, proposals, and policies, over real mutual TLS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.authority.keys import new_key
from controller.jobs import progress
from protocol.action import RevokeStanding
from protocol.codec import decode_envelope, encode_envelope, encode_order, to_ms
from protocol.errors import Code
from protocol.identity import Role
from protocol.ids import TenantId
from protocol.order import Order, Signature, sign, signers_of
from protocol.policy import Policy, Rule, sign_policy
from protocol.policy_codec import encode_policy, encode_signed_policy
from protocol.rollout import EVERYTHING, Amount, Rollout
from protocol.standing import Standing
from protocol.v1 import job_pb2, link_pb2, operator_pb2, policy_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from protocol.v1.policy_pb2_grpc import PolicyServiceStub
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refused
from tests.integration.test_link import linked
from tests.integration.test_link import order_for as plain_order


@dataclass
class Person:
    """An operator at a command line."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    jobs: Any

    def signed(self, order: Order) -> bytes:
        data = encode_order(order)
        return encode_envelope(sign(data, key=self.key, certificate=self.certificate))

    def submit(self, order: Order, *, propose: bool = False) -> Any:
        request = job_pb2.SubmitOrderRequest(envelope=self.signed(order), propose=propose)
        return self.jobs.SubmitOrder(request)

    def signature(self, data: bytes) -> Signature:
        return sign(data, key=self.key, certificate=self.certificate).signatures[0]

    def approve(self, order: Order, given: Signature | None = None) -> Any:
        one = given or self.signature(encode_order(order))
        request = job_pb2.ApproveJobRequest(
            job_id=order.id, certificate=one.certificate, signature=one.signature
        )
        return self.jobs.ApproveJob(request)

    def reject(self, order: Order, reason: str = "") -> Any:
        return self.jobs.RejectJob(job_pb2.RejectJobRequest(job_id=order.id, reason=reason))


@pytest.fixture
async def machine(installation: Installation) -> Enrolled:
    return await installation.new_machine(await installation.add_tenant())


def person(
    installation: Installation, name: str, role: Role, tenants: frozenset[TenantId] | None = None
) -> Person:
    key, certificate = installation.operator(name, role, tenants)
    return Person(key, certificate, JobServiceStub(installation.channel(key, certificate)))


def policy(
    installation: Installation,
    tenant: TenantId,
    version: int,
    *rules: Rule,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    data = encode_policy(Policy(tenant, version, installation.controller.parts.started_at, rules))
    return encode_signed_policy(sign_policy(data, key or installation.root_issuer.key))


def order_for(machine: Enrolled, **changes: Any) -> Order:
    return replace(plain_order(machine.tenant, machine), **changes)


async def rule(installation: Installation, machine: Enrolled, version: int, *rules: Rule) -> bytes:
    data = policy(installation, machine.tenant, version, *rules)
    request = policy_pb2.ApplyPolicyRequest(tenant_id=machine.tenant, policy=data)
    await PolicyServiceStub(installation.admin()).ApplyPolicy(request)
    return data


ALWAYS_TWO = Rule("run_program", second_above=0)


def states(job: Any) -> list[str]:
    return [task.state for task in job.tasks]


async def test_an_order_is_offered_once_a_second_operator_signed_the_same_bytes(
    installation: Installation, machine: Enrolled
) -> None:
    ann = person(installation, "ann", Role.TECHNICIAN)
    bob = person(installation, "bob", Role.TECHNICIAN)
    hal = person(installation, "hal", Role.HELPDESK)
    eve = person(installation, "eve", Role.ADMIN, frozenset({TenantId("tn_" + "7" * 26)}))
    ruled = await rule(installation, machine, 1, ALWAYS_TWO)
    wanted, other = order_for(machine), order_for(machine)

    async with linked(installation, machine, revision=5) as agent:
        assert (await agent.hear("policy_changed")).policy == ruled
        job = (await ann.submit(wanted)).job
        assert states(job) == ["awaiting"]
        assert ([one.name for one in job.signers], job.signatures_missing) == (["ann"], 1)
        assert states((await ann.submit(wanted)).job) == ["awaiting"]

        # Nobody but a second operator of the tenant, and nothing but these bytes.
        again = person(installation, "ann", Role.TECHNICIAN)
        assert (await refused(ann.approve(wanted))).code is Code.DENIED
        assert (await refused(again.approve(wanted))).code is Code.DENIED
        assert (await refused(hal.approve(wanted))).code is Code.DENIED
        assert (await refused(eve.approve(wanted))).code is Code.NOT_FOUND
        wrong = bob.signature(encode_order(other))
        assert (await refused(bob.approve(wanted, wrong))).code is Code.BAD_SIGNATURE
        borrowed = ann.signature(encode_order(wanted))
        assert (await refused(bob.approve(wanted, borrowed))).code is Code.BAD_SIGNATURE
        forged = Signature(bob.certificate.public_bytes(Encoding.DER), borrowed.signature)
        assert (await refused(bob.approve(wanted, forged))).code is Code.BAD_SIGNATURE
        shown = await ann.jobs.GetJob(job_pb2.GetJobRequest(job_id=wanted.id))
        assert states(shown.job) == ["awaiting"]

        done = (await bob.approve(wanted)).job
        assert [one.name for one in done.signers] == ["ann", "bob"]
        offer = await agent.hear("task_offer")
        envelope = decode_envelope(offer.envelope)
        assert envelope.order == encode_order(wanted)
        names = [
            signer.identity.name
            for signer in signers_of(envelope, root=installation.root, now=clock.now())
        ]
        assert names == ["ann", "bob"]
        assert (await refused(bob.approve(wanted))).code is Code.PRECONDITION
    events = [(e.actor, e.event) for e in await installation.audit(machine.tenant)]
    assert ("operator/bob", "order_approved") in events


async def test_what_was_proposed_awaits_whoever_may_order_it(
    installation: Installation, machine: Enrolled
) -> None:
    ann = person(installation, "ann", Role.TECHNICIAN)
    hal = person(installation, "hal", Role.HELPDESK)
    wanted = order_for(machine)
    refusal = await refused(hal.submit(wanted))
    assert refusal.code is Code.DENIED
    assert "--propose" in str(refusal)
    job = (await hal.submit(wanted, propose=True)).job
    assert states(job) == ["awaiting"]
    assert [(one.name, one.proposed) for one in job.signers] == [("hal", True)]
    done = (await ann.approve(wanted)).job
    assert states(done) == ["queued"]
    assert [(one.name, one.proposed) for one in done.signers] == [("hal", True), ("ann", False)]

    taken_back, no = order_for(machine), order_for(machine)
    for one in (taken_back, no):
        await hal.submit(one, propose=True)
    request = job_pb2.CancelJobRequest(job_id=taken_back.id)
    assert states((await hal.jobs.CancelJob(request)).job) == ["cancelled"]
    [task] = (await ann.reject(no, "not on a Friday")).job.tasks
    assert (task.state, task.message) == ("rejected", "ann rejected it: not on a Friday")
    for one in (taken_back, no):
        assert (await refused(ann.approve(one))).code is Code.PRECONDITION
        assert (await refused(ann.reject(one))).code is Code.PRECONDITION


async def test_a_rollout_begins_with_its_approval_and_what_nobody_approves_expires(
    installation: Installation, machine: Enrolled
) -> None:
    ann, bob = (person(installation, name, Role.ADMIN) for name in ("ann", "bob"))
    await rule(installation, machine, 1, ALWAYS_TWO)
    rolled = order_for(machine, rollout=Rollout((Amount(1), EVERYTHING)))
    assert not (await ann.submit(rolled)).job.HasField("rollout")
    assert (await bob.approve(rolled)).job.HasField("rollout")
    async with linked(installation, machine) as agent:
        assert decode_envelope((await agent.hear("task_offer")).envelope).order == encode_order(
            rolled
        )

    forgotten = order_for(machine)
    await ann.submit(forgotten)
    listed = await bob.jobs.ListJobs(job_pb2.ListJobsRequest(state="awaiting"))
    assert [job.job_id for job in listed.jobs] == [forgotten.id]
    late = forgotten.deliver_by + timedelta(seconds=1)
    await installation.controller.parts.db.write(lambda c: progress.sweep(c, late))
    found = await ann.jobs.GetJob(job_pb2.GetJobRequest(job_id=forgotten.id))
    [task] = found.job.tasks
    assert task.state == "expired"
    assert "nobody approved it" in task.message


async def test_versions_of_a_policy_only_grow_and_only_the_root_makes_them(
    installation: Installation, machine: Enrolled
) -> None:
    stub = PolicyServiceStub(installation.admin())

    def apply(data: bytes, tenant: str = machine.tenant) -> Any:
        return stub.ApplyPolicy(policy_pb2.ApplyPolicyRequest(tenant_id=tenant, policy=data))

    second = await rule(installation, machine, 2, ALWAYS_TWO)
    await apply(second)
    for old in (1, 2):
        data = policy(installation, machine.tenant, old, Rule("run_script", forbid=True))
        assert (await refused(apply(data))).code is Code.REPLAYED
    forged = policy(installation, machine.tenant, 9, key=new_key())
    assert (await refused(apply(forged))).code is Code.BAD_SIGNATURE
    other = await installation.add_tenant("other")
    assert (await refused(apply(second, other))).code is Code.WRONG_TENANT
    third = await rule(installation, machine, 3, Rule("run_program", forbid=True))
    asked = await stub.GetPolicy(policy_pb2.GetPolicyRequest(tenant_id=machine.tenant))
    assert asked.policy == third
    listed = await stub.ListPolicies(policy_pb2.ListPoliciesRequest(tenant_id=machine.tenant))
    assert [one.policy for one in listed.policies] == [third, second]
    events = [entry.event for entry in await installation.audit(machine.tenant)]
    assert events.count("policy_published") == 2
    ann = person(installation, "ann", Role.ADMIN)
    assert "forbids run_program" in str(await refused(ann.submit(order_for(machine))))


async def test_what_a_machines_own_settings_rule_out_is_shown_while_it_is_linked(
    installation: Installation, machine: Enrolled
) -> None:
    machines = MachineServiceStub(installation.admin())

    async def shown() -> operator_pb2.Machine:
        [one] = (await machines.ListMachines(operator_pb2.ListMachinesRequest())).machines
        return one

    said = link_pb2.Ceiling(deny=["run_script", "x" * 500], read_only=True, policy_version=3)
    async with linked(installation, machine, revision=5) as agent:
        assert not (await shown()).HasField("ceiling")
        await agent.say(heartbeat=link_pb2.Heartbeat(ceiling=said))
        await agent.hear("heartbeat_acknowledged")
        ceiling = (await shown()).ceiling
        assert list(ceiling.deny) == ["run_script", "x" * 80]
        assert (ceiling.read_only, ceiling.policy_version) == (True, 3)


async def test_whoever_may_cancel_stops_also_what_a_policy_keeps_from_them(
    installation: Installation, machine: Enrolled
) -> None:
    """To stop something nobody has to wait for a second person, nor for another role."""
    root = person(installation, "root", Role.ADMIN)
    ann = person(installation, "ann", Role.TECHNICIAN)
    hal = person(installation, "hal", Role.HELPDESK)
    first, second = order_for(machine), order_for(machine)
    for one in (first, second):
        await root.submit(one)
    for version, ruled, order in (
        (1, Rule("run_program", roles=("admin",)), first),
        (2, Rule("run_program", forbid=True), second),
    ):
        await rule(installation, machine, version, ruled)
        request = job_pb2.CancelJobRequest(job_id=order.id)
        assert (await refused(hal.jobs.CancelJob(request))).code is Code.DENIED
        assert states((await ann.jobs.CancelJob(request)).job) == ["cancelled"]


async def test_a_revocation_that_is_only_proposed_is_not_on_its_way(
    installation: Installation, machine: Enrolled
) -> None:
    ann = person(installation, "ann", Role.TECHNICIAN)
    hal = person(installation, "hal", Role.HELPDESK)
    bounds = Standing("daily", to_ms(clock.now() + timedelta(days=9)))
    standing = order_for(machine, standing=bounds)
    await ann.submit(standing)
    revoking = order_for(machine, action=RevokeStanding(standing.id))
    await hal.submit(revoking, propose=True)

    async def state() -> str:
        asked = job_pb2.ListStandingRequest(order_id=standing.id)
        [found] = (await ann.jobs.ListStanding(asked)).orders
        return str(found.machines[0].state)

    assert await state() == "sent"
    await ann.approve(revoking)
    assert await state() == "revoking"
