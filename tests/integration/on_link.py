"""One message said on a link of its own, and what is answered to it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message

from protocol.v1 import link_pb2
from protocol.v1.link_pb2_grpc import LinkServiceStub
from tests.integration.test_link import hello

WAIT_S = 30


async def said_on_link(channel: grpc.aio.Channel, request: Any) -> list[Message]:
    """Say one thing on a link; what is answered to it, once a heartbeat is."""
    call: Any = LinkServiceStub(channel).Connect()
    await call.write(hello())
    await call.write(request)
    await call.write(link_pb2.ConnectRequest(heartbeat=link_pb2.Heartbeat()))
    answers: list[Message] = []
    beats = 1 + (request.WhichOneof("message") == "heartbeat")
    async with asyncio.timeout(WAIT_S):
        while beats:
            got = await call.read()
            if got is grpc.aio.EOF:
                await call.wait_for_connection()  # raises what ended it
                raise AssertionError("the link ended without a reason")
            match got.WhichOneof("message"):
                case "heartbeat_acknowledged":
                    beats -= 1
                case "refusal" | "outcome_acknowledged":
                    answers.append(got)
    call.cancel()
    return answers
