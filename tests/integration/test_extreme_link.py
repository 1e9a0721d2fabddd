"""Whatever a controller says on a link, the link ends in words if it ends, and the agent goes on.

The controller has the issuing authority's key, and orders that operators signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agent.host import clock
from agent.link.outbox import Outbox
from agent.link.ratchet import keep_token
from agent.link.stream import Stream
from agent.presence import Presence
from protocol.action import RunProgram
from protocol.checkpoint import Checkpoint, encode_signed, sign_checkpoint
from protocol.codec import REVISION, encode_envelope, to_ms
from protocol.errors import SteadError
from protocol.v1 import link_pb2
from protocol.v1.link_pb2_grpc import LinkServiceServicer, add_LinkServiceServicer_to_server
from tests.fakes.link_server import new_task
from tests.fakes.standing_machine import Machine
from tests.integration.extremes import changed

END = link_pb2.ConnectResponse(drain=link_pb2.Drain(reconnect_within_s=1))
END_S = 30


class Saying(LinkServiceServicer):
    """Says what it is to say, then that it drains, and hears whatever comes."""

    def __init__(self) -> None:
        self.words: list[link_pb2.ConnectResponse] = []

    async def Connect(  # noqa: N802
        self, request_iterator: AsyncIterator[link_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[link_pb2.ConnectResponse]:
        await anext(request_iterator)
        for word in (*self.words, END):
            yield word


def good_words(machine: Machine) -> Iterator[link_pb2.ConnectResponse]:
    """Each message that a controller sends, as one that means no harm sends it."""
    task, now = new_task(), to_ms(datetime.now(UTC))
    offer = encode_envelope(machine.signed(RunProgram(("true",))))
    refusal = link_pb2.ConnectResponse()
    refusal.refusal.code, refusal.refusal.message = "invalid", "why"
    yield refusal
    for said in (
        {"task_offer": link_pb2.TaskOffer(task_id=task, envelope=offer)},
        {"outcome_acknowledged": link_pb2.OutcomeAcknowledged(task_id=task)},
        {"heartbeat_acknowledged": link_pb2.HeartbeatAcknowledged(controller_time_ms=now)},
        {"revocations_changed": link_pb2.RevocationsChanged(revocations=b"list")},
        {"policy_changed": link_pb2.PolicyChanged(policy=b"policy")},
        {"checkpoint_told": link_pb2.CheckpointTold(checkpoint=b"signed", proof=[bytes(32)])},
        {"drain": link_pb2.Drain(reconnect_within_s=1)},
    ):
        yield link_pb2.ConnectResponse(**said)


def checkpoints(machine: Machine) -> Iterator[link_pb2.ConnectResponse]:
    """Signed as a checkpoint has to be, and of logs that nobody has."""
    issuing = machine.realm.issuing
    good = Checkpoint(machine.identity.tenant, 5, bytes(32), bytes(32), machine.at)
    for change in (
        {},
        {"size": 0},
        {"size": 2**63 - 1},
        {"size": 2**63},
        {"size": -1},
        {"log": ""},
        {"log": "\0" * 1000},
        {"log": "tn_" + "0" * 26},
        {"root": b""},
        {"head": bytes(100)},
        {"at": datetime(1, 1, 1, tzinfo=UTC)},
        {"at": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)},
    ):
        made = replace(good, **change)
        shown = issuing.certificate.public_bytes(Encoding.DER)
        signed = encode_signed(sign_checkpoint(made, issuing.key, shown))
        for proof in ([], [bytes(32)] * 200, [b""]):
            told = link_pb2.CheckpointTold(checkpoint=signed, proof=proof)
            yield link_pb2.ConnectResponse(checkpoint_told=told)


def welcome() -> link_pb2.ConnectResponse:
    said = link_pb2.Welcome(
        controller_time_ms=to_ms(clock.now()),
        heartbeat_interval_s=30,
        revision=REVISION,
        controller_version="1",
        ratchet=b"token",
    )
    return link_pb2.ConnectResponse(welcome=said)


@pytest.mark.timeout(300)
async def test_no_extreme_word_of_a_controller_ends_more_than_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    presence = Presence(machine.home, machine.intake, machine.identity, lambda: None)
    outbox, saying = Outbox(), Saying()
    server = grpc.aio.server()
    add_LinkServiceServicer_to_server(saying, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    conversations = [[word] for _, word in changed(welcome())]
    conversations += [
        [welcome(), said] for good in good_words(machine) for _, said in changed(good)
    ]
    conversations += [[welcome(), said] for said in checkpoints(machine)]
    wrong = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for words in conversations:
            saying.words = words
            stream = Stream(
                channel, outbox, presence, keep=lambda token: keep_token(machine.home, token)
            )
            try:
                async with asyncio.timeout(END_S):
                    await stream.converse(link_pb2.Hello(revision=REVISION))
            except SteadError:
                pass
            except Exception as error:
                wrong.append(f"{words[-1]!r:.300}: {error!r}")
    await server.stop(0)
    assert wrong == []
    outcome = await machine.take(machine.signed(RunProgram(("true",))))
    assert outcome.state == "succeeded"
    machine.intake.prune()
    machine.start()
    machine.intake.settle()
    outcome = await machine.take(machine.signed(RunProgram(("true",))))
    assert outcome.state == "succeeded"
