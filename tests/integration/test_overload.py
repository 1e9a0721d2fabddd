"""Callers who ask for too much or send too slowly take nothing from the others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from controller.rpc import interceptor
from controller.rpc.interceptor import Gate, Turns
from protocol.errors import Code
from protocol.v1 import inventory_pb2, operator_pb2
from protocol.v1.inventory_pb2_grpc import InventoryServiceStub
from protocol.v1.operator_pb2_grpc import ControllerServiceStub
from tests.integration.conftest import Installation
from tests.integration.refusal import refused

WAIT_S = 20


def unsent(channel: grpc.aio.Channel, method: str, until: asyncio.Event) -> Any:
    """A call whose one request does not come until the event."""

    async def requests() -> AsyncIterator[bytes]:
        await until.wait()
        yield b""

    call = channel.stream_unary(
        method, request_serializer=lambda data: data, response_deserializer=lambda data: data
    )
    return call(requests())


async def test_half_sent_enrollments_do_not_keep_a_machine_out(installation: Installation) -> None:
    token = await installation.add_token(await installation.add_tenant())
    channel, enough = installation.enrollment_channel(), asyncio.Event()
    stalled = [unsent(channel, "/protocol.v1.EnrollmentService/Enroll", enough) for _ in range(600)]
    await asyncio.sleep(0.5)
    async with asyncio.timeout(WAIT_S):
        await installation.enroll(token)
    assert not any(call.done() for call in stalled)
    enough.set()
    for call in stalled:
        call.cancel()


async def test_a_request_that_does_not_arrive_is_given_up(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate: Gate = installation.controller._server._gate
    monkeypatch.setattr(gate, "_patience", timedelta(seconds=0.2))
    never = asyncio.Event()
    call = unsent(installation.admin(), "/protocol.v1.ControllerService/Status", never)
    async with asyncio.timeout(WAIT_S):
        assert (await refused(call)).code is Code.TIMED_OUT
    never.set()


async def test_one_callers_slow_requests_do_not_hold_up_another(
    installation: Installation,
) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    channel, enough = installation.machine_channel(machine), asyncio.Event()
    stalled = [
        unsent(channel, "/protocol.v1.InventoryService/Report", enough)
        for _ in range(2 * interceptor.TURNS)
    ]
    await asyncio.sleep(0.5)
    async with asyncio.timeout(WAIT_S):
        await ControllerServiceStub(installation.admin()).Status(operator_pb2.StatusRequest())
    assert not any(call.done() for call in stalled)
    enough.set()
    for call in stalled:
        call.cancel()


async def test_a_refused_call_leaves_its_request_nowhere(installation: Installation) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    stub = InventoryServiceStub(installation.machine_channel(machine))
    section = inventory_pb2.SectionHash(name="cpu", hash=bytes(32))
    for _ in range(20):
        request = inventory_pb2.ReportRequest(sections=[section], bodies=[b"x" * 100_000])
        assert (await refused(stub.Report(request))).code is Code.INVALID
    del request
    gc.collect()
    kept = [o for o in gc.get_objects() if isinstance(o, inventory_pb2.ReportRequest)]
    # What gRPC has not yet let go of the last calls may still be there.
    assert len(kept) < 5


async def test_callers_have_turns_of_their_own_and_leave_nothing_behind() -> None:
    turns = Turns(1)
    order: list[str] = []

    async def take(key: str, name: str, until: asyncio.Event) -> None:
        async with turns.taken(key):
            order.append(name)
            await until.wait()

    first, rest = asyncio.Event(), asyncio.Event()
    rest.set()
    tasks = [asyncio.create_task(take("ann", "one", first))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(take("ann", "two", rest))]
    await take("bob", "other", rest)
    assert order == ["one", "other"]
    first.set()
    await asyncio.gather(*tasks)
    assert order == ["one", "other", "two"]
    assert not turns._taken
