"""Schedules: slots that fit together, in every zone and over every change of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidError
from protocol.schedule import (
    Every,
    Schedule,
    is_due,
    next_begin,
    offset_of,
    parse_schedule,
    slot_begin,
    spread_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
NEAR_CHANGES = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from(
        [datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 28), (3, 29), (10, 25))]
    ),
    st.integers(0, 2 * 24 * 60),
)
TEXTS = st.sampled_from(
    [
        "hourly",
        "daily",
        "weekly",
        "30 2 * * *",
        "0 2 * * *",
        "15 */2 * * *",
        "0 3 * * 1-5",
        "59 23 31 12 *",
        "*/20 * * * *",
        "0 0 1 * *",
        "30 2 29 2 *",
    ]
)
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
).map(ZoneInfo)
OFFSETS = st.timedeltas(timedelta(), timedelta(hours=3)).map(
    lambda offset: timedelta(seconds=int(offset.total_seconds()))
)


def parsed(text: str) -> Schedule:
    schedule = parse_schedule(text)
    assert schedule is not None
    return schedule


@given(TEXTS, TIMES | NEAR_CHANGES, OFFSETS, ZONES)
def test_a_time_lies_in_its_slot_and_the_next_begins_where_it_ends(
    text: str, at: datetime, offset: timedelta, zone: ZoneInfo
) -> None:
    schedule = parsed(text)
    begin = slot_begin(schedule, at, offset, zone)
    end = next_begin(schedule, at, offset, zone)
    assert begin <= at < end
    assert slot_begin(schedule, end, offset, zone) == end
    assert slot_begin(schedule, end - timedelta(microseconds=1), offset, zone) == begin
    assert next_begin(schedule, begin, offset, zone) == end


@given(TEXTS, TIMES | NEAR_CHANGES, st.timedeltas(timedelta(), timedelta(days=400)), OFFSETS, ZONES)
def test_whatever_was_missed_is_caught_up_exactly_once(
    text: str, last: datetime, away: timedelta, offset: timedelta, zone: ZoneInfo
) -> None:
    schedule, now = parsed(text), last + away
    missed = next_begin(schedule, last, offset, zone) <= now
    assert is_due(schedule, now, last, offset, zone) == missed
    assert not is_due(schedule, now, now, offset, zone)


def runs(text: str, day: datetime, days: int) -> list[str]:
    schedule, at, found = parsed(text), day, []
    while (at := next_begin(schedule, at, timedelta(), BERLIN)) < day + timedelta(days=days):
        found.append(f"{at.astimezone(BERLIN):%d %H:%M %z}")
    return found


def test_a_night_that_is_an_hour_short_loses_no_run() -> None:
    assert runs("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == [
        "29 03:00 +0200",  # half past two does not exist
        "30 02:30 +0200",
    ]


def test_a_night_that_is_an_hour_long_doubles_no_run() -> None:
    assert runs("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == [
        "25 02:30 +0200",
        "26 02:30 +0100",
    ]


def test_every_hour_is_every_hour_that_passes() -> None:
    assert len(runs("0 * * * *", datetime(2026, 10, 24, 23, 59, tzinfo=UTC), 1)) == 24
    assert len(runs("0 * * * *", datetime(2026, 3, 28, 23, 59, tzinfo=UTC), 1)) == 24


def test_a_clock_set_back_does_not_stop_anything() -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    for text in ("daily", "0 3 * * *"):
        assert is_due(parsed(text), now, now + timedelta(days=3650), timedelta(), BERLIN)


@pytest.mark.parametrize(
    "text",
    [
        "fortnightly",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "0 0 30 2 *",
        "a b c d e",
        " ",
        "@x",
        "0 3 * * 1-5 " + "x" * 300,
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_schedule(text)


def test_nothing_means_on_order_only() -> None:
    assert parse_schedule("") is None


def test_a_spread_is_the_schedules_own_unless_it_is_said() -> None:
    cron, daily, day = parsed("0 3 * * *"), parsed("daily"), timedelta(days=1)
    assert (spread_of(daily, None), spread_of(cron, None)) == (day, timedelta())
    assert spread_of(daily, timedelta(hours=2)) == timedelta(hours=2)
    assert spread_of(daily, timedelta(days=9)) == day
    assert spread_of(cron, timedelta(days=9)) == timedelta(days=7)


@given(st.text(), st.timedeltas(timedelta(), timedelta(days=8)))
def test_an_offset_lies_within_its_spread(name: str, spread: timedelta) -> None:
    assert timedelta() <= offset_of(name, spread) <= spread
    assert offset_of(name, spread) == offset_of(name, spread)


def test_a_fleet_is_spread_out() -> None:
    day = timedelta(days=1)
    assert len({offset_of(f"mc_{number}", day) for number in range(100)}) > 90
    assert Every(day) == parsed("daily")
