from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from controller.cli.options.moment import parse_moment
from protocol.errors import InvalidError

EAST = timezone(timedelta(hours=2))
NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)  # a Monday


def east(at: datetime) -> datetime:
    return at.replace(tzinfo=EAST) if at.tzinfo is None else at.astimezone(EAST)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("today", datetime(2026, 5, 3, 22, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 5, 2, 22, tzinfo=UTC)),
        ("monday", datetime(2026, 4, 26, 22, tzinfo=UTC)),
        ("friday", datetime(2026, 4, 30, 22, tzinfo=UTC)),
        ("2026-05-01", datetime(2026, 4, 30, 22, tzinfo=UTC)),
        ("2026-05-01 12:00", datetime(2026, 5, 1, 10, tzinfo=UTC)),
        ("2026-05-01T12:00:30Z", datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)),
        ("2026-05-01T12:00+05:00", datetime(2026, 5, 1, 7, tzinfo=UTC)),
    ],
)
def test_a_moment_is_what_the_person_means_in_their_zone(text: str, expected: datetime) -> None:
    assert parse_moment(text, now=NOW, local=east) == expected


@pytest.mark.parametrize(
    "text", ["", "soon", "3", "d", "-3d", "3y", "2026-13-01", "tomorrow", "999999w", "2027-01-01"]
)
def test_what_is_no_moment_of_the_past_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_moment(text, now=NOW, local=east)
