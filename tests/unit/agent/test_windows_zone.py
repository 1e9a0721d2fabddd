"""A zone of Windows is what the rest of the world calls by another name."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.windows_zone import parse_information, zone_of
from protocol.errors import InvalidError

NONE = (0,) * 8


def information(
    bias: int, back: tuple[int, ...], forth: tuple[int, ...], summer_bias: int = -60
) -> bytes:
    """A `TIME_ZONE_INFORMATION` as winbase.h has it, with names that nobody looks at."""
    name = "Größe".encode("utf-16-le")
    return struct.pack("<i64s8Hi64s8Hi", bias, name, *back, 0, name, *forth, summer_bias)


def at(month: int, week: int, hour: int, minute: int = 0) -> tuple[int, ...]:
    """A Sunday of a month."""
    return (0, month, 0, week, hour, minute, 0, 0)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (information(-60, at(10, 5, 3), at(3, 5, 2)), "Europe/Berlin"),
        (information(0, at(10, 5, 2), at(3, 5, 1)), "Europe/London"),
        (information(300, at(11, 1, 2), at(3, 2, 2)), "America/New_York"),
        (information(210, at(11, 1, 2), at(3, 2, 2)), "America/St_Johns"),
        (information(-600, at(4, 1, 3), at(10, 1, 2)), "Australia/Sydney"),
        (information(-630, at(4, 1, 2), at(10, 1, 2), -30), "Australia/Lord_Howe"),
        (information(-330, NONE, NONE, 0), "Asia/Kolkata"),
        (information(0, NONE, NONE), "UTC"),
    ],
)
def test_it_has_the_hours_of_the_zone_by_its_other_name(told: bytes, name: str) -> None:
    ours, theirs = zone_of(parse_information(told)), ZoneInfo(name)
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    for _ in range(365 * 48):
        assert moment.astimezone(ours).utcoffset() == moment.astimezone(theirs).utcoffset()
        moment += timedelta(minutes=30)
    # From the wall clock too, where an hour comes twice or never.
    for month, day in ((3, 29), (10, 25)):
        for fold in (0, 1):
            by_ours, by_theirs = (
                datetime(2026, month, day, 2, 30, fold=fold, tzinfo=zone) for zone in (ours, theirs)
            )
            assert by_ours.utcoffset() == by_theirs.utcoffset()


def test_dates_of_one_year_are_no_rule() -> None:
    certain = (2026, 10, 0, 25, 3, 0, 0, 0)
    zone = zone_of(parse_information(information(-60, certain, certain)))
    for month in (1, 7):
        assert datetime(2026, month, 1, tzinfo=zone).utcoffset() == timedelta(hours=1)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        information(-60, at(10, 5, 3), at(3, 5, 2))[:-1],
        information(100_000, NONE, NONE),
        information(-60, at(13, 5, 3), at(3, 5, 2)),
        information(-60, at(10, 0, 3), at(3, 5, 2)),
        information(-60, at(10, 5, 24), at(3, 5, 2)),
    ],
)
def test_what_can_be_no_zone_is_refused(told: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_information(told)


@given(st.binary(min_size=172, max_size=172))
def test_no_bytes_make_a_zone_that_cannot_be_used(data: bytes) -> None:
    try:
        rule = parse_information(data)
    except InvalidError:
        return
    zone = zone_of(rule)
    assert datetime(2026, 7, 1, tzinfo=UTC).astimezone(zone).tzinfo is zone
