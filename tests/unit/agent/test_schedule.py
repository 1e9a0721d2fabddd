from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tasks.schedule import PERIODS, begin_of, is_due, offset_of, period_of, slot_of
from protocol.errors import InvalidError
from protocol.ids import MachineId, make_id

TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
PERIOD = st.sampled_from(sorted(PERIODS.values()))


def machine(number: int) -> MachineId:
    return MachineId(make_id("mc", at_ms=number, random=bytes(10)))


@given(TIMES, PERIOD, st.integers(0, 1000))
def test_a_time_lies_in_its_slot(at: datetime, period: timedelta, number: int) -> None:
    slot = slot_of(at, machine(number), period)
    begin = begin_of(slot, machine(number), period)
    assert begin <= at < begin + period


@given(TIMES, PERIOD, st.timedeltas(timedelta(), timedelta(days=400)))
def test_whatever_was_missed_is_caught_up_exactly_once(
    last: datetime, period: timedelta, away: timedelta
) -> None:
    now = last + away
    if away >= period:
        assert is_due(now, last, machine(1), period)
    assert not is_due(now, now, machine(1), period)


def test_machines_begin_at_times_of_their_own_which_stay_the_same() -> None:
    day = timedelta(days=1)
    offsets = [offset_of(machine(number), day) for number in range(100)]
    assert len(set(offsets)) > 90
    assert offsets == [offset_of(machine(number), day) for number in range(100)]


def test_a_clock_set_back_does_not_stop_backups() -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    assert is_due(now, now + timedelta(days=3650), machine(1), timedelta(days=1))


def test_a_word_that_is_no_schedule_is_refused() -> None:
    assert period_of("") is None
    with pytest.raises(InvalidError, match="hourly, daily, weekly"):
        period_of("fortnightly")
