from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from controller.cli.operator.connection import Connection
from controller.cli.orders.retrying import failed_machines, order_to_repeat, signed_order
from controller.config import OperatorHome
from protocol.codec import (
    encode_envelope,
    encode_order,
    encode_revocations,
    encode_signed_revocations,
)
from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, Role
from protocol.ids import OrderId
from protocol.order import Envelope
from protocol.revocation import Revocations, RevokedOperator, sign_revocations
from protocol.v1.job_pb2 import GetOrderRequest, GetOrderResponse, Job, Task
from protocol.v1.operator_pb2 import GetRevocationsResponse
from tests.unit.protocol.signed import NOW, ORDER, ROOT, signed


class Given:
    """A controller that hands over an envelope, whatever it is asked for."""

    def __init__(self, envelope: Envelope, home: Path = Path(), name: str = "ann") -> None:
        self.root = ROOT.certificate
        self.jobs = self.operators = self
        self.home = OperatorHome(home)
        self.operator = OperatorIdentity(name, Role.TECHNICIAN, None)
        self._envelope = envelope

    def GetOrder(self, _: GetOrderRequest) -> GetOrderResponse:  # noqa: N802 - the name on the wire
        return GetOrderResponse(envelope=encode_envelope(self._envelope))

    def GetRevocations(self, _: object) -> GetRevocationsResponse:  # noqa: N802
        return GetRevocationsResponse()


def asked(envelope: Envelope, job: str) -> Any:
    return signed_order(cast("Connection", Given(envelope)), job)


def test_the_order_is_taken_from_the_bytes_that_were_signed() -> None:
    assert asked(signed(), ORDER.id) == ORDER


def test_a_controller_cannot_have_another_order_signed() -> None:
    other = OrderId("or_" + "1" * 26)
    edited = Envelope(encode_order(replace(ORDER, reason="mine")), signed().signatures)
    for envelope, job in ((signed(), other), (edited, ORDER.id), (Envelope(b"", ()), ORDER.id)):
        with pytest.raises(SteadError) as refused:
            asked(envelope, job)
        assert refused.value.code in {Code.BAD_SIGNATURE, Code.UNKNOWN_ACTION}


def test_only_machines_that_the_order_named_and_that_failed_are_meant() -> None:
    (named,) = ORDER.machines
    tasks = [
        Task(machine_id=named, state="failed"),
        Task(machine_id="mc_" + "9" * 26, state="failed"),
    ]
    assert failed_machines(Job(tasks=tasks), ORDER) == {named}
    for state in ("succeeded", "running", "waiting"):
        tasks[0].state = state
        assert not failed_machines(Job(tasks=tasks), ORDER)


def test_what_somebody_signed_who_was_revoked_is_not_signed_again(tmp_path: Path) -> None:
    given = cast("Connection", Given(signed(), tmp_path))
    assert order_to_repeat(given, ORDER.id, own=True) == ORDER
    listed = encode_revocations(Revocations(1, NOW, (RevokedOperator("ann", b"", NOW),)))
    data = encode_signed_revocations(sign_revocations(listed, ROOT.key))
    given.home.revocations.write_bytes(data)
    with pytest.raises(SteadError) as refused:
        order_to_repeat(given, ORDER.id, own=False)
    assert refused.value.code is Code.REVOKED


def test_a_controller_does_not_choose_what_somebody_ordered_last(tmp_path: Path) -> None:
    given = cast("Connection", Given(signed(), tmp_path, "bob"))
    assert order_to_repeat(given, ORDER.id, own=False) == ORDER
    with pytest.raises(SteadError) as refused:
        order_to_repeat(given, ORDER.id, own=True)
    assert refused.value.code is Code.BAD_SIGNATURE
