"""The bounds of standing orders, and the names of their runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.action import (
    ApplyUpdates,
    ChangeVaultSecret,
    RevokeStanding,
    RunProgram,
    SetBackup,
    TakeSnapshot,
)
from protocol.codec import decode_order, encode_order, to_ms
from protocol.errors import Code, InvalidError
from protocol.ids import OrderId, check_id
from protocol.order import Order
from protocol.standing import LONGEST, Standing, check_standing, job_of_run
from tests.unit.protocol.signed import NOW, ORDER, accept, signed

SLOTS = st.integers(0, 2**32).map(lambda at: datetime.fromtimestamp(at, UTC))


def standing(**changes: object) -> Standing:
    good = Standing("daily", to_ms(NOW + timedelta(days=30)))
    return replace(good, **changes)  # type: ignore[arg-type]


def order(**changes: object) -> Order:
    return replace(ORDER, action=RunProgram(("true",)), standing=standing(**changes))


def test_a_standing_order_is_read_as_it_was_signed_and_accepted_within_its_bounds() -> None:
    wanted = order(max_runs=3, spread_s=60, name="nightly")
    assert decode_order(encode_order(wanted)) == wanted
    assert accept(signed(wanted))[0] == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": ""},
        {"schedule": "often"},
        {"schedule": "61 * * * *"},
        {"schedule": "0 0 30 2 *"},
        {"ends_at_ms": 0},
        {"ends_at_ms": to_ms(NOW)},
        {"ends_at_ms": to_ms(NOW + LONGEST) + 1},
        {"ends_at_ms": 2**62},
        {"spread_s": 8 * 86_400},
        {"max_runs": 2**32 - 1},
        {"name": "Not A Name"},
    ],
    ids=repr,
)
def test_bounds_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        accept(signed(order(**changes)))


@pytest.mark.parametrize(
    "action",
    [
        SetBackup((b"/etc",)),
        ApplyUpdates(b"{}"),
        ChangeVaultSecret({}),
        RevokeStanding("or_" + "0" * 26),
    ],
    ids=repr,
)
def test_what_is_meant_for_one_moment_cannot_stand(action: object) -> None:
    with pytest.raises(InvalidError, match="is no standing order"):
        check_standing(standing(), action, NOW)  # type: ignore[arg-type]


def test_an_agent_that_knows_no_standing_orders_refuses_one_instead_of_running_it_once() -> None:
    from protocol.codec import refuse_unknown
    from protocol.errors import SteadError
    from tests.unit.protocol.test_first_release import first_release

    message = first_release().FromString(encode_order(replace(order(), action=TakeSnapshot())))
    with pytest.raises(SteadError) as caught:
        refuse_unknown(message)
    assert caught.value.code is Code.UNKNOWN_FIELD


@given(SLOTS, SLOTS)
def test_a_run_is_named_by_its_order_and_slot_alone(one: datetime, other: datetime) -> None:
    first, second = OrderId("or_" + "0" * 26), OrderId("or_" + "1" * 26)
    name = job_of_run(first, one)
    assert check_id("or", name) == name == job_of_run(first, one)
    assert name != job_of_run(second, one)
    assert (name == job_of_run(first, other)) == (one == other)
