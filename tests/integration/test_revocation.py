"""Who is revoked is out: on calls to come and on streams that run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.authority.certificates import certify_machine
from controller.authority.keys import new_serial
from protocol.codec import REVISION, to_ms
from protocol.errors import Code
from protocol.identity import MachineIdentity, Role
from protocol.v1 import inventory_pb2, job_pb2, operator_pb2
from protocol.v1.inventory_pb2_grpc import InventoryServiceStub
from protocol.v1.job_pb2_grpc import JobServiceStub
from protocol.v1.link_pb2 import ConnectRequest, Heartbeat, Hello
from protocol.v1.link_pb2_grpc import LinkServiceStub
from protocol.v1.operator_pb2_grpc import (
    ControllerServiceStub,
    MachineServiceStub,
    OperatorServiceStub,
)
from tests.integration.commands import stead
from tests.integration.conftest import Enrolled, Installation
from tests.integration.refusal import refused

IN_TIME_S = 20.0
"""It takes milliseconds; at the next heartbeat it would be 30 s at least."""


class Link:
    """A link that a synthetic machine holds open."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._done = asyncio.Event()
        self._call: Any = LinkServiceStub(channel).Connect(self._requests())

    async def welcomed(self) -> None:
        assert (await anext(aiter(self._call))).WhichOneof("message") == "welcome"

    async def rest(self) -> None:
        """Read until the stream ends, which raises unless the controller ended it well."""
        try:
            async for _ in self._call:
                pass
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """End the requests: gRPC waits for that, whatever became of the call."""
        self._done.set()

    async def _requests(self) -> AsyncIterator[ConnectRequest]:
        yield ConnectRequest(
            hello=Hello(
                agent_version="0.1.0",
                revision=REVISION,
                agent_time_ms=to_ms(clock.now()),
                hostname="web-01",
            )
        )
        await self._done.wait()


@pytest.fixture
async def machine(installation: Installation) -> Enrolled:
    return await installation.new_machine(await installation.add_tenant())


async def linked(installation: Installation) -> int:
    answer = await ControllerServiceStub(installation.admin()).Status(operator_pb2.StatusRequest())
    return answer.linked_machines


async def in_time(call: Awaitable[Any]) -> Code:
    async with asyncio.timeout(IN_TIME_S):
        return (await refused(call)).code


def report(channel: grpc.aio.Channel) -> Awaitable[inventory_pb2.ReportResponse]:
    section = inventory_pb2.SectionHash(name="cpu", hash=bytes(32))
    answer: Awaitable[inventory_pb2.ReportResponse] = InventoryServiceStub(channel).Report(
        inventory_pb2.ReportRequest(sections=[section])
    )
    return answer


async def test_a_revoked_machine_is_cut_from_its_link_and_refused_from_then_on(
    installation: Installation, machine: Enrolled
) -> None:
    channel = installation.machine_channel(machine)
    link = Link(channel)
    await link.welcomed()
    assert await linked(installation) == 1
    assert (await report(channel)).missing
    await MachineServiceStub(installation.admin()).RevokeMachine(
        operator_pb2.RevokeMachineRequest(machine_id=machine.id)
    )
    assert await in_time(link.rest()) is Code.REVOKED
    assert (await refused(report(channel))).code is Code.REVOKED
    assert await linked(installation) == 0
    await installation.restart()
    assert (await refused(report(installation.machine_channel(machine)))).code is Code.REVOKED
    assert (await installation.audit(machine.tenant))[-1].event == "machine_revoked"


async def test_a_revoked_machine_that_does_not_read_is_cut_all_the_same(
    installation: Installation, machine: Enrolled
) -> None:
    narrow = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
    channel = installation.channel(machine.key, *machine.chain, options=narrow)
    call: Any = LinkServiceStub(channel).Connect()
    await call.write(
        ConnectRequest(hello=Hello(revision=REVISION, agent_time_ms=to_ms(clock.now())))
    )
    assert (await call.read()).WhichOneof("message") == "welcome"
    # By now the controller waits in a write that nobody takes.
    for _ in range(30_000):
        await call.write(ConnectRequest(heartbeat=Heartbeat()))
    assert await linked(installation) == 1
    await MachineServiceStub(installation.admin()).RevokeMachine(
        operator_pb2.RevokeMachineRequest(machine_id=machine.id)
    )
    async with asyncio.timeout(IN_TIME_S):
        while await linked(installation):
            await asyncio.sleep(0.1)
    call.cancel()


async def test_revoking_one_machine_leaves_its_neighbour_linked(
    installation: Installation, machine: Enrolled
) -> None:
    neighbour = await installation.new_machine(machine.tenant)
    links = [Link(installation.machine_channel(m)) for m in (machine, neighbour)]
    for link in links:
        await link.welcomed()
    await MachineServiceStub(installation.admin()).RevokeMachine(
        operator_pb2.RevokeMachineRequest(machine_id=machine.id)
    )
    assert await in_time(links[0].rest()) is Code.REVOKED
    assert await linked(installation) == 1
    links[1].hang_up()


async def test_a_link_ends_with_the_certificate_that_began_it(
    installation: Installation, machine: Enrolled
) -> None:
    try:
        link, channel = await short_link(installation, machine, timedelta(seconds=3))
    except grpc.RpcError:  # a loaded machine: it had ended before the link began
        link, channel = await short_link(installation, machine, timedelta(seconds=15))
    assert await in_time(link.rest()) is Code.EXPIRED
    assert (await refused(report(channel))).code is Code.EXPIRED


async def short_link(
    installation: Installation, machine: Enrolled, lifetime: timedelta
) -> tuple[Link, grpc.aio.Channel]:
    """A link that was welcomed under a certificate that ends soon."""
    issuing = installation.controller.parts.authority.issuing
    leaf = certify_machine(
        issuing,
        machine.key.public_key(),
        MachineIdentity(machine.tenant, machine.id),
        serial=new_serial(),
        now=clock.now(),
        lifetime=lifetime,
    )
    channel = installation.channel(machine.key, leaf, issuing.certificate)
    link = Link(channel)
    await link.welcomed()
    return link, channel


async def watch(channel: grpc.aio.Channel, job: str, watching: asyncio.Event) -> None:
    call: Any = JobServiceStub(channel).WatchJob(job_pb2.WatchJobRequest(job_id=job))
    async for _ in call:
        watching.set()


async def add_operator(
    installation: Installation, name: str
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key, certificate = installation.operator(name, Role.TECHNICIAN)
    await OperatorServiceStub(installation.admin()).AddOperator(
        operator_pb2.AddOperatorRequest(certificate=certificate.public_bytes(Encoding.DER))
    )
    return key, certificate


async def test_a_revoked_operator_is_cut_from_what_runs_and_refused_from_then_on(
    installation: Installation, machine: Enrolled
) -> None:
    ann = await add_operator(installation, "ann")
    channel = installation.channel(*ann)
    job = await JobServiceStub(channel).SubmitOrder(
        job_pb2.SubmitOrderRequest(
            envelope=installation.signed_order(*ann, machine.tenant, machine.id)
        )
    )
    watching = asyncio.Event()
    watched = asyncio.create_task(watch(channel, job.job.job_id, watching))
    async with asyncio.timeout(IN_TIME_S):
        await watching.wait()
    admin = OperatorServiceStub(installation.admin())
    await admin.RevokeOperator(operator_pb2.RevokeOperatorRequest(name="ann"))
    assert await in_time(watched) is Code.REVOKED
    status = operator_pb2.StatusRequest()
    assert (await refused(ControllerServiceStub(channel).Status(status))).code is Code.REVOKED
    listed = (await admin.ListOperators(operator_pb2.ListOperatorsRequest())).operators
    assert [(o.name, o.revoked_at_ms > 0) for o in listed] == [("admin", False), ("ann", True)]
    await installation.restart()
    again = ControllerServiceStub(installation.channel(*ann))
    assert (await refused(again.Status(status))).code is Code.REVOKED


async def test_whom_the_controller_does_not_list_is_revoked_by_name(
    installation: Installation,
) -> None:
    """As after its database was put back, or where it hides them."""
    zoe = ControllerServiceStub(installation.channel(*installation.operator("zoe", Role.ADMIN)))
    status = operator_pb2.StatusRequest()
    await zoe.Status(status)
    revoke = ("operator", "revoke", "zoe", "--yes")
    said = await stead(installation, *revoke, code=1, error=True)
    assert "--by-name revokes whom the controller does not list" in said
    await zoe.Status(status)
    said = await stead(installation, *revoke, "--by-name", error=True)
    assert "zoe is revoked by name alone" in said
    assert (await refused(zoe.Status(status))).code is Code.REVOKED
    again = installation.operator("zoe", Role.ADMIN)
    again_zoe = ControllerServiceStub(installation.channel(*again))
    assert (await refused(again_zoe.Status(status))).code is Code.REVOKED


async def test_a_revoked_operator_does_not_return_under_the_name(
    installation: Installation,
) -> None:
    await add_operator(installation, "ann")
    await OperatorServiceStub(installation.admin()).RevokeOperator(
        operator_pb2.RevokeOperatorRequest(name="ann")
    )
    refusal = await refused(add_operator(installation, "ann"))
    assert refusal.code is Code.ALREADY_EXISTS


async def test_an_operator_that_the_root_did_not_sign_is_not_recorded(
    installation: Installation, machine: Enrolled
) -> None:
    admin = OperatorServiceStub(installation.admin())
    issuing = installation.controller.parts.authority.issuing
    for der in (
        machine.answer.certificate_chain[0],
        issuing.certificate.public_bytes(Encoding.DER),
        b"no certificate",
        b"",
    ):
        refusal = await refused(admin.AddOperator(operator_pb2.AddOperatorRequest(certificate=der)))
        assert refusal.code is Code.INVALID


async def test_a_stopping_controller_ends_its_links_well(
    installation: Installation, machine: Enrolled
) -> None:
    link = Link(installation.machine_channel(machine))
    await link.welcomed()
    stopping = asyncio.create_task(installation.controller.stop(timedelta(seconds=5)))
    async with asyncio.timeout(IN_TIME_S):
        await link.rest()
    await stopping
