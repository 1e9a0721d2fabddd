"""The laws of maintenance windows, in zones with and without summer time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidError
from protocol.window import Window, next_opening, next_start, parse_window, render_window

ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")]
BERLIN = ZONES[1]

windows = st.builds(
    Window,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    begin=st.integers(0, 1439),
    end=st.integers(0, 1440),
).filter(lambda window: window.begin != window.end)
times = st.integers(0, 4 * 365 * 86_400).map(
    lambda s: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=s)
)
zones = st.sampled_from(ZONES)


@given(windows)
def test_a_window_is_read_as_it_is_written(window: Window) -> None:
    assert parse_window(render_window(window)) == window


@given(st.text(alphabet="montuesawdfri 0123456789:-,", max_size=30))
def test_any_text_is_a_window_or_a_named_error(text: str) -> None:
    try:
        window = parse_window(text)
    except InvalidError:
        return
    assert parse_window(render_window(window)) == window


@given(st.lists(windows, min_size=1, max_size=3), times, zones)
def test_the_next_opening_comes_within_eight_days_and_is_one(
    some: list[Window], at: datetime, zone: ZoneInfo
) -> None:
    opening = next_opening(some, at, zone)
    assert at <= opening <= at + timedelta(days=8)
    assert next_opening(some, opening, zone) == opening


@given(windows, times, zones)
def test_nothing_is_open_before_the_next_opening(
    window: Window, at: datetime, zone: ZoneInfo
) -> None:
    opening = next_opening([window], at, zone)
    middle = at + (opening - at) / 2
    assert next_opening([window], middle, zone) == opening if middle < opening else True


@given(windows, times, times, zones, st.booleans())
def test_a_start_is_in_a_window_and_in_time_unless_it_is_to_be_caught_up(
    window: Window, at: datetime, deliver_by: datetime, zone: ZoneInfo, catch_up: bool
) -> None:
    start = next_start([window], at=at, deliver_by=deliver_by, zone=zone, catch_up=catch_up)
    opening = next_opening([window], at, zone)
    if opening <= deliver_by:
        assert start == opening
    else:
        assert start == (at if catch_up else None)


@pytest.mark.parametrize(
    ("window", "at", "opening"),
    [
        # A Tuesday, noon in Berlin; the window of that night, and of the one before.
        ("22:00-04:00", "2026-05-05T10:00", "2026-05-05T20:00"),
        ("mon 22:00-04:00", "2026-05-05T01:00", "2026-05-05T01:00"),
        ("mon 22:00-04:00", "2026-05-05T02:00", "2026-05-11T20:00"),
        ("sat,sun 08:00-20:00", "2026-05-05T10:00", "2026-05-09T06:00"),
        ("fri-mon 08:00-20:00", "2026-05-05T10:00", "2026-05-08T06:00"),
        ("sun 00:00-24:00", "2026-05-10T21:59", "2026-05-10T21:59"),
        # 02:30 does not exist on 29 March 2026 in Berlin, and exists twice on 25 October.
        ("02:30-03:30", "2026-03-28T12:00", "2026-03-29T01:00"),
        ("02:30-03:30", "2026-10-24T12:00", "2026-10-25T00:30"),
    ],
)
def test_windows_count_in_the_zone_of_the_machine(window: str, at: str, opening: str) -> None:
    def utc(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert next_opening([parse_window(window)], utc(at), BERLIN) == utc(opening)


@pytest.mark.parametrize(
    "text", ["", "22:00", "24:00-01:00", "10:00-24:01", "08:00-08:00", "foo 08:00-09:00", "1-2"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_window(text)


def test_a_window_that_summer_time_leaves_out_comes_the_day_after() -> None:
    """On 29 March 2026 there is no 02:00 to 03:00 in Berlin."""
    window, saturday = parse_window("02:00-03:00"), datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert next_opening([window], saturday, BERLIN) == datetime(2026, 3, 30, 0, tzinfo=UTC)
