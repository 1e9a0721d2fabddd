"""Every method that the `.proto` files define, found through their descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from protocol.v1 import (
    enrollment_pb2,
    inventory_pb2,
    job_pb2,
    link_pb2,
    operator_pb2,
    order_pb2,
    parcel_pb2,
    policy_pb2,
    proof_pb2,
    refusal_pb2,
    retention_pb2,
    revocation_pb2,
    unlock_pb2,
    vault_pb2,
)

FILES = (
    enrollment_pb2,
    inventory_pb2,
    job_pb2,
    link_pb2,
    operator_pb2,
    order_pb2,
    parcel_pb2,
    policy_pb2,
    proof_pb2,
    retention_pb2,
    refusal_pb2,
    revocation_pb2,
    unlock_pb2,
    vault_pb2,
)

_TRIES = 10
_WRITE_FAILED = "Internal error from Core"


@dataclass(frozen=True)
class Method:
    """One method, callable without generated code."""

    descriptor: MethodDescriptor

    @property
    def path(self) -> str:
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def request(self) -> type[Message]:
        return GetMessageClass(self.descriptor.input_type)

    async def call(self, channel: grpc.aio.Channel, request: Message) -> list[Message]:
        """Send one request, the only one, and collect at most ten answers.

        A controller that refuses a stream at once may be done before the request is written,
        and grpc.aio then puts an error of its own in the place of the refusal, which nothing
        can read any more (grpc/grpc issue 36066): such a call is made again.
        """
        for _ in range(_TRIES):
            try:
                return await self._call(channel, request)
            except grpc.aio.AioRpcError as error:
                if not (self.descriptor.client_streaming and error.details() == _WRITE_FAILED):
                    raise
                lost = error
        raise lost

    async def _call(self, channel: grpc.aio.Channel, request: Message) -> list[Message]:
        kind = (
            ("stream" if self.descriptor.client_streaming else "unary")
            + "_"
            + ("stream" if self.descriptor.server_streaming else "unary")
        )
        make: Any = getattr(channel, kind)
        stub = make(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=GetMessageClass(self.descriptor.output_type).FromString,
        )
        call = stub(iter([request]) if self.descriptor.client_streaming else request, timeout=20)
        if not self.descriptor.server_streaming:
            return [await call]
        answers: list[Message] = []
        async for answer in call:
            answers.append(answer)
            if len(answers) == 10:
                call.cancel()
                break
        return answers


def methods() -> Iterator[Method]:
    """All methods of all services."""
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for descriptor in service.methods:
                yield Method(descriptor)
