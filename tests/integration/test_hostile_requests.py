"""Whatever a caller with a good certificate sends, it is answered or refused in our words."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from controller.rpc.authorisation import TABLE, Who
from protocol.errors import Code
from tests.integration.conftest import Installation
from tests.integration.refusal import refusal_of
from tests.integration.services import Method, methods

ROUNDS = 25
SEED = 20_260_501
BROKEN = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.DATA_LOSS,
}


def text(draw: random.Random, known: list[str]) -> str:
    return draw.choice(
        [
            "",
            "a",
            "a" * 5000,
            "../../etc",
            "nul\0nul",
            "\x1b[31m",
            "'; DROP TABLE machines; --",
            "\U0001f4a5",
            "tn_" + "z" * 26,
            *known,
        ]
    )


def value(field: Any, draw: random.Random, known: list[str]) -> Any:
    kinds: dict[int, Callable[[], Any]] = {
        FieldDescriptor.TYPE_STRING: lambda: text(draw, known),
        FieldDescriptor.TYPE_BYTES: lambda: draw.choice(
            [b"", b"\0" * 32, draw.randbytes(32), draw.randbytes(200), b"\x30\x82\xff\xff"]
        ),
        FieldDescriptor.TYPE_INT64: lambda: draw.choice([0, 1, -1, 2**63 - 1, -(2**63)]),
        FieldDescriptor.TYPE_INT32: lambda: draw.choice([0, 1, -1, 2**31 - 1, -(2**31)]),
        FieldDescriptor.TYPE_SINT32: lambda: draw.choice([0, 1, -1, 2**31 - 1, -(2**31)]),
        FieldDescriptor.TYPE_UINT32: lambda: draw.choice([0, 1, 2**31, 2**32 - 1]),
        FieldDescriptor.TYPE_UINT64: lambda: draw.choice([0, 1, 2**63, 2**64 - 1]),
        FieldDescriptor.TYPE_BOOL: lambda: draw.random() < 0.5,
        FieldDescriptor.TYPE_ENUM: lambda: draw.choice([0, 1, 2, 99, -1]),
    }
    return kinds[field.type]()


def fill(message: Message, draw: random.Random, known: list[str]) -> None:
    """Put something into about two fields of three."""
    for field in message.DESCRIPTOR.fields:
        if draw.random() < 0.35:
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = getattr(message, field.name)
            for _ in range(draw.randrange(3) if field.is_repeated else 1):
                fill(inner.add() if field.is_repeated else inner, draw, known)
            if not field.is_repeated:
                inner.SetInParent()
        elif field.is_repeated:
            for _ in range(draw.randrange(4)):
                getattr(message, field.name).append(value(field, draw, known))
        else:
            setattr(message, field.name, value(field, draw, known))


async def outcome(method: Method, channel: grpc.aio.Channel, request: Message) -> Any:
    """None when the controller stood the request, what it said otherwise."""
    try:
        await method.call(channel, request)
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        if error.code() in BROKEN or (refusal is not None and refusal.code is Code.INTERNAL):
            return method.path, error.code(), error.details(), request
    return None


@pytest.mark.parametrize("who", ["admin", "machine", "nobody"])
async def test_no_request_breaks_a_method(installation: Installation, who: str) -> None:
    tenant = await installation.add_tenant()
    machine = await installation.new_machine(tenant)
    known = [tenant, machine.id, machine.name, "admin"]
    channel = {
        "admin": installation.admin,
        "machine": lambda: installation.machine_channel(machine),
        "nobody": installation.enrollment_channel,
    }[who]()
    kind = {"admin": Who.ADMIN, "machine": Who.MACHINE, "nobody": Who.ANYBODY}[who]
    draw = random.Random(SEED)
    print("seed", SEED)
    # Whoever revokes ends the test's own callers.
    spared = {"RevokeOperator", "RevokeMachine"}
    broken = []
    for method in methods():
        if kind not in TABLE[method.path] or method.descriptor.name in spared:
            continue
        for _ in range(ROUNDS):
            request = method.request()
            fill(request, draw, known)
            broken.append(await outcome(method, channel, request))
    assert [found for found in broken if found is not None] == []
    assert await installation.audit(tenant)


async def test_bytes_that_are_no_message_are_refused(installation: Installation) -> None:
    channel = installation.admin()
    call = channel.unary_unary(
        "/protocol.v1.TenantService/AddTenant",
        request_serializer=lambda data: data,
        response_deserializer=lambda data: data,
    )
    for garbage in (b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f", b"\x08\x01", b"\x0a\x02\xff\xff"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(garbage)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, garbage
