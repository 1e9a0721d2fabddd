"""What becomes of the orders of an operator who is revoked, and of the last administrator."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.keys import new_key
from controller.jobs import progress
from protocol.codec import encode_revocations, encode_signed_revocations, to_ms
from protocol.errors import Code
from protocol.identity import MachineIdentity, Role
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from protocol.v1 import job_pb2, link_pb2, operator_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.operator_pb2_grpc import OperatorServiceStub
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refused
from tests.integration.test_link import enveloped, job_of, linked, order_for, submit


@pytest.fixture
async def machine(installation: Installation) -> Enrolled:
    return await installation.new_machine(await installation.add_tenant())


async def test_what_a_revoked_operator_ordered_is_delivered_to_nobody(
    installation: Installation, machine: Enrolled
) -> None:
    key, certificate = installation.operator("ann", Role.TECHNICIAN)
    admin = OperatorServiceStub(installation.admin())
    await admin.AddOperator(
        operator_pb2.AddOperatorRequest(certificate=certificate.public_bytes(Encoding.DER))
    )
    jobs = JobServiceStub(installation.channel(key, certificate))
    hers = []
    for _ in range(2):
        envelope = installation.signed_order(key, certificate, machine.tenant, machine.id)
        answer = await jobs.SubmitOrder(job_pb2.SubmitOrderRequest(envelope=envelope))
        hers.append(answer.job)
    # One was on its way when the link broke: nobody knows whether it arrived.
    on_its_way = hers[0].tasks[0].task_id
    identity = MachineIdentity(machine.tenant, machine.id)
    db = installation.controller.parts.db
    now = installation.controller.parts.started_at
    await db.write(lambda c: progress.mark_offered(c, identity, [on_its_way], now))

    await admin.RevokeOperator(operator_pb2.RevokeOperatorRequest(name="ann"))
    states = [(await job_of(installation, job.job_id)).job.tasks[0].state for job in hers]
    assert states == ["offered", "cancelled"]
    events = [(e.actor, e.event) for e in await installation.audit(machine.tenant)]
    assert events[-1] == ("operator/admin", "job_cancelled")
    others = await submit(installation, enveloped(installation, order_for(machine.tenant, machine)))
    async with linked(installation, machine) as agent:
        offer = await agent.hear("task_offer")
        assert offer.task_id == others.tasks[0].task_id
        await agent.finish(offer.task_id)
        assert not [m for m in agent.inbox if m.WhichOneof("message") == "task_offer"]


async def test_the_list_reaches_machines_at_once_and_never_an_older_one(
    installation: Installation, machine: Enrolled
) -> None:
    admin = OperatorServiceStub(installation.admin())
    for name in ("ann", "eve"):
        _, certificate = installation.operator(name, Role.TECHNICIAN)
        shown = certificate.public_bytes(Encoding.DER)
        await admin.AddOperator(operator_pb2.AddOperatorRequest(certificate=shown))
    now = installation.controller.parts.started_at

    def listed(version: int, *names: str, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        entries = tuple(RevokedOperator(name, b"", now) for name in names)
        data = encode_revocations(Revocations(version, now, entries))
        signed = sign_revocations(data, key or installation.root_issuer.key)
        return encode_signed_revocations(signed)

    def revoke(name: str, data: bytes) -> Any:
        request = operator_pb2.RevokeOperatorRequest(name=name, revocations=data)
        return admin.RevokeOperator(request)

    async with linked(installation, machine, revision=2) as agent:
        second = listed(2, "ann")
        await revoke("ann", second)
        assert (await agent.hear("revocations_changed")).revocations == second
        forged = listed(9, "eve", key=new_key())
        assert (await refused(revoke("eve", forged))).code is Code.BAD_SIGNATURE
        for old in (listed(1, "eve"), listed(2, "eve")):
            assert (await refused(revoke("eve", old))).code is Code.REPLAYED
        assert (await refused(revoke("eve", listed(3, "ann")))).code is Code.INVALID
        await revoke("ann", second)
        third = listed(3, "ann", "eve")
        await revoke("eve", third)
        assert (await agent.hear("revocations_changed")).revocations == third
    async with linked(installation, machine, revision=2) as back:
        assert (await back.hear("revocations_changed")).revocations == third
    async with linked(installation, machine, revision=1) as first:
        await first.say(heartbeat=link_pb2.Heartbeat())
        await first.hear("heartbeat_acknowledged")
        # It would end the link over a message that it does not know.
        assert not first.inbox
    asked = await admin.GetRevocations(operator_pb2.GetRevocationsRequest())
    assert asked.revocations == third
    events = [entry.event for entry in await installation.audit("")]
    assert events.count("revocations_published") == 2
    assert events.count("operator_revoked") == 2


async def test_a_renewed_certificate_is_listed_from_its_first_order_on(
    installation: Installation, machine: Enrolled
) -> None:
    admin = OperatorServiceStub(installation.admin())
    old_key, old = installation.operator("ann", Role.TECHNICIAN)
    later_key, new = installation.operator("ann", Role.TECHNICIAN, lifetime=timedelta(days=9))
    shown = old.public_bytes(Encoding.DER)
    await admin.AddOperator(operator_pb2.AddOperatorRequest(certificate=shown))
    for key, certificate in ((later_key, new), (old_key, old)):
        envelope = installation.signed_order(key, certificate, machine.tenant, machine.id)
        jobs = JobServiceStub(installation.channel(key, certificate))
        await jobs.SubmitOrder(job_pb2.SubmitOrderRequest(envelope=envelope))
        listed = (await admin.ListOperators(operator_pb2.ListOperatorsRequest())).operators
        [ends] = [one.not_after_ms for one in listed if one.name == "ann"]
        # The old one is good until its own end, and does not come back into the list.
        assert ends == to_ms(new.not_valid_after_utc)


async def test_the_last_administrator_stays(installation: Installation, machine: Enrolled) -> None:
    admin = OperatorServiceStub(installation.admin())

    async def add(name: str, *scope: object) -> None:
        _, certificate = installation.operator(
            name, Role.ADMIN, frozenset({machine.tenant}) if scope else None
        )
        await admin.AddOperator(
            operator_pb2.AddOperatorRequest(certificate=certificate.public_bytes(Encoding.DER))
        )

    await add("ann", machine.tenant)
    request = operator_pb2.RevokeOperatorRequest(name="admin")
    refusal = await refused(admin.RevokeOperator(request))
    assert refusal.code is Code.PRECONDITION
    await add("eve")
    await admin.RevokeOperator(request)
    assert (await refused(admin.RevokeOperator(request))).code is Code.REVOKED
