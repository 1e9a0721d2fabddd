"""Whatever is extreme in a request is answered or refused in our words, and nothing ends of it.

Every field of every request of an operator and of a machine takes every value that nobody
means, one at a time. Then all that was kept of it is read, from a controller that was started
anew as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import grpc
import pytest
from google.protobuf.message import Message

from controller import clock
from controller.jobs.approval import MAX_REASON
from controller.rpc.authorisation import Who, only_looks
from protocol.action import RunScript, name_of
from protocol.codec import encode_envelope, encode_order, order_to_pb
from protocol.errors import Code
from protocol.identity import Role
from protocol.ids import MachineId, TenantId
from protocol.order import sign
from protocol.v1 import job_pb2
from protocol.v1.job_pb2_grpc import JobServiceStub
from tests.fakes.link_server import fresh
from tests.integration.conftest import Installation
from tests.integration.every_request import FRESH, Pick, cases
from tests.integration.extremes import changed
from tests.integration.good_orders import TERMS, good_orders
from tests.integration.on_link import said_on_link
from tests.integration.refusal import refusal_of
from tests.integration.services import Method
from tests.integration.test_link import order_for
from tests.integration.test_tenant_walls import called_by
from tests.integration.two_tenants import Furnished, Side, furnish, nobody, signed_point

PACED = ("bytes_per_s = 1", "bytes_per_s = 86400")
"""So slow that it takes hours is what was asked for."""


class Caller:
    """Somebody of one tenant, who notes every call that was not answered as it should be."""

    def __init__(self, installation: Installation, ours: Furnished) -> None:
        self.installation = installation
        self.ours = ours
        self.tenant = TenantId(ours.to_operators.tenant)
        self.key, self.certificate = installation.operator(
            "ann", Role.ADMIN, frozenset({self.tenant})
        )
        self.broken: list[str] = []

    def channel(self, who: Who) -> grpc.aio.Channel:
        if who is Who.MACHINE:
            return self.installation.machine_channel(self.ours.machine)
        return self.installation.channel(self.key, self.certificate)

    def requests(self, who: Who, method: Method) -> Iterator[tuple[str, Message]]:
        """Good requests, one for each thing that the method does."""
        side = self.ours.to_machines if who is Who.MACHINE else self.ours.to_operators
        for case in cases(method, self._signed):
            if not case.label.endswith(" alone"):
                yield str(case), case.make(partial(_picked, side))

    def _signed(self, pick: Pick, what: str) -> bytes:
        if what == "a restore point":
            session = str(pick("CommitRequest.session_id", "session"))
            return signed_point(self.ours.machine, session.replace("vs_", "rp_"))
        order = order_for(self.tenant, self.ours.machine)
        return encode_envelope(
            sign(encode_order(order), key=self.key, certificate=self.certificate)
        )

    async def send(
        self, channel: grpc.aio.Channel, method: Method, label: str, request: Message
    ) -> None:
        try:
            if method.descriptor.name == "Connect":
                await said_on_link(channel, request)
            else:
                await method.call(channel, request)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            if refusal is None or refusal.code is Code.INTERNAL:
                self.broken.append(f"{label}: {error.code()} {error.details()}")

    async def read_all(self) -> None:
        """Ask whatever only looks, as good requests do, and see what the controller does alone."""
        channel = self.channel(Who.ADMIN)
        for method in called_by(Who.ADMIN):
            if only_looks(method.path):
                for label, request in self.requests(Who.ADMIN, method):
                    await self.send(channel, method, f"afterwards {label}", request)
        controller = self.installation.controller
        alone = {name: work for name, work in vars(controller).items() if hasattr(work, "done")}
        assert alone
        self.broken += [f"{name} is over" for name, work in alone.items() if work.done()]
        assert await self.installation.audit(self.tenant)


def _picked(side: Side, path: str, kind: str) -> str | bytes:
    of = nobody() if kind.startswith(FRESH) else side
    found: str | bytes = getattr(of, kind.removeprefix(FRESH))
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", [Who.ADMIN, Who.MACHINE])
async def test_no_extreme_value_of_a_request_breaks_a_call(
    installation: Installation, who: Who
) -> None:
    caller = Caller(installation, await furnish(installation, "ours"))
    channel = caller.channel(who)
    for method in called_by(who):
        for label, good in caller.requests(who, method):
            for change, request in changed(good):
                if change not in PACED:
                    await caller.send(channel, method, f"{label}: {change}", request)
    await caller.read_all()
    await installation.restart()
    await caller.read_all()
    assert caller.broken == []


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_no_extreme_value_of_a_signed_order_breaks_a_call(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ours = await furnish(installation, "ours")
    caller = Caller(installation, ours)
    submit = next(one for one in called_by(Who.ADMIN) if one.descriptor.name == "SubmitOrder")
    channel = caller.channel(Who.ADMIN)
    machine = MachineId(ours.machine.id)
    place = tmp_path_factory.mktemp("place")
    for kind, order in good_orders(caller.tenant, machine, place, clock.now()):
        good = order_to_pb(order)
        # What all orders say is tried with one of them.
        for change, message in changed(good, None if kind in TERMS else name_of(order.action)):
            if message.order_id == good.order_id:
                message.order_id = fresh("or")
            envelope = encode_envelope(
                sign(message.SerializeToString(), key=caller.key, certificate=caller.certificate)
            )
            request = job_pb2.SubmitOrderRequest(envelope=envelope)
            await caller.send(channel, submit, f"{kind}: {change}", request)
    await caller.read_all()
    await installation.restart()
    await caller.read_all()
    listed = await JobServiceStub(caller.channel(Who.ADMIN)).ListJobs(
        job_pb2.ListJobsRequest(tenant_id=caller.tenant, limit=1000)
    )
    assert len(listed.jobs) > 100
    assert caller.broken == []


async def test_what_an_operator_says_of_an_order_keeps_nobody_from_the_list_of_all(
    installation: Installation,
) -> None:
    tenant = await installation.add_tenant()
    machine = await installation.new_machine(tenant)
    admin = JobServiceStub(installation.admin())
    script = RunScript("x" * 500_000, b"true")
    for changes in ({"reason": "x" * 900_000}, {"action": script}, {"reason": "x" * MAX_REASON}):
        for _ in range(30):
            order = replace(order_for(tenant, machine), **changes)
            envelope = encode_envelope(
                sign(
                    encode_order(order),
                    key=installation.admin_key,
                    certificate=installation.admin_certificate,
                )
            )
            with suppress(grpc.aio.AioRpcError):
                await admin.SubmitOrder(job_pb2.SubmitOrderRequest(envelope=envelope))
    listed = await admin.ListJobs(job_pb2.ListJobsRequest(limit=1000))
    assert len(listed.jobs) >= 30
    assert listed.ByteSize() < 1 << 20
