"""Laws of orders on their way: read back whole, or rejected in our own words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.action import ACTIONS
from protocol.codec import (
    MAX_REFUSAL,
    decode_envelope,
    decode_order,
    encode_envelope,
    encode_order,
    from_ms,
    outcome_from_pb,
    outcome_to_pb,
    refusal_from_pb,
    refusal_to_pb,
    to_ms,
)
from protocol.errors import Code, SteadError
from protocol.ids import TaskId
from protocol.order import Envelope, Order, Signature
from protocol.outcome import Outcome, OutcomeState
from protocol.shown import shown_text
from protocol.v1.link_pb2 import TaskOutcome
from protocol.v1.refusal_pb2 import Refusal
from tests.property.orders import TEXT, TIMES, orders, record_of
from tests.unit.protocol.signed import ORDER, accept, signed

# An edited certificate can have a serial number that no certificate should have.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

SIGNED = encode_envelope(signed())
ENVELOPES = st.builds(
    Envelope,
    st.binary(max_size=50),
    st.lists(st.builds(Signature, st.binary(max_size=20), st.binary(max_size=20)), max_size=3).map(
        tuple
    ),
)


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_is_read_back_as_it_was_ordered(name: str) -> None:
    @settings(max_examples=30)
    @given(orders(record_of(ACTIONS[name])))
    def law(order: Order) -> None:
        assert decode_order(encode_order(order)) == order

    law()


@given(orders(), orders())
def test_two_orders_have_the_same_bytes_only_when_they_are_one(one: Order, other: Order) -> None:
    assert (encode_order(one) == encode_order(other)) == (one == other)
    assert encode_order(one) == encode_order(decode_order(encode_order(one)))


@given(ENVELOPES)
def test_an_envelope_is_read_back_byte_for_byte(envelope: Envelope) -> None:
    assert decode_envelope(encode_envelope(envelope)) == envelope


def obeyed(travelled: bytes) -> Order | None:
    try:
        return accept(travelled)[0]
    except SteadError as error:
        assert error.code is not Code.INTERNAL  # noqa: PT017 - it may as well be accepted
        return None


@settings(max_examples=1000)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SIGNED) - 1), st.integers(0, 255)), min_size=1, max_size=3
    )
)
def test_an_envelope_with_other_bytes_orders_the_same_or_nothing(
    edits: list[tuple[int, int]],
) -> None:
    travelled = bytearray(SIGNED)
    for place, value in edits:
        travelled[place] = value
    assert obeyed(bytes(travelled)) in (None, ORDER)


@given(st.integers(0, len(SIGNED)), st.integers(0, 80), st.binary(max_size=40))
def test_an_envelope_cut_or_padded_orders_the_same_or_nothing(
    place: int, cut: int, inserted: bytes
) -> None:
    assert obeyed(SIGNED[:place] + inserted + SIGNED[place + cut :]) in (None, ORDER)


@given(st.binary(max_size=300))
def test_any_bytes_are_rejected(data: bytes) -> None:
    assert obeyed(data) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_an_order_or_refused(data: bytes) -> None:
    try:
        order = decode_order(data)
    except SteadError as error:
        assert error.code in {Code.INVALID, Code.UNKNOWN_FIELD, Code.UNKNOWN_ACTION}  # noqa: PT017
        return
    assert decode_order(encode_order(order)) == order


@given(orders(), st.binary(min_size=1, max_size=20), st.integers(0, 400))
def test_an_order_with_foreign_bytes_is_an_order_or_refused(
    order: Order, foreign: bytes, place: int
) -> None:
    whole = encode_order(order)
    place %= len(whole)
    try:
        decode_order(whole[:place] + foreign + whole[place:])
    except SteadError as error:
        assert error.code in {Code.INVALID, Code.UNKNOWN_FIELD, Code.UNKNOWN_ACTION}  # noqa: PT017


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_number_is_a_time_or_refused(ms: int) -> None:
    try:
        at = from_ms(ms)
    except SteadError:
        assert not 0 <= ms <= 253_402_300_799_000
        return
    assert to_ms(at) == ms


@given(
    st.builds(
        Outcome,
        st.just(TaskId("ts_" + "0" * 26)),
        st.sampled_from(OutcomeState),
        code=TEXT,
        message=TEXT,
        exit_code=st.integers(-(2**31), 2**31 - 1),
        result=st.binary(max_size=20),
        started_at=st.none() | TIMES.filter(lambda at: to_ms(at) > 0),
        ended_at=st.none() | TIMES.filter(lambda at: to_ms(at) > 0),
        output_truncated=st.booleans(),
    )
)
def test_an_outcome_is_read_back_as_it_was_sent(outcome: Outcome) -> None:
    sent = outcome_to_pb(outcome).SerializeToString()
    assert outcome_from_pb(TaskOutcome.FromString(sent)) == outcome


@given(st.sampled_from(Code), TEXT)
def test_a_refusal_is_read_back_with_the_words_that_people_may_be_shown(
    code: Code, message: str
) -> None:
    sent = refusal_to_pb(SteadError(message, code=code)).SerializeToString()
    found = refusal_from_pb(Refusal.FromString(sent))
    assert (found.code, str(found)) == (code, shown_text(message, longest=MAX_REFUSAL))
    assert str(found).isprintable()
    again = refusal_from_pb(refusal_to_pb(found))
    assert (again.code, str(again)) == (found.code, str(found))
