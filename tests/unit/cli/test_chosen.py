from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest

from controller.cli.points.chosen import choose
from protocol.errors import InvalidError, NotFoundError

EAST = timezone(timedelta(hours=2))
NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)  # a Monday


@dataclass(frozen=True)
class Point:
    id: str
    received_at: datetime | None


def east(at: datetime) -> datetime:
    return at.replace(tzinfo=EAST) if at.tzinfo is None else at.astimezone(EAST)


POINTS = [
    Point("rp_05ccc2", datetime(2026, 5, 4, 9, tzinfo=UTC)),
    Point("rp_05ccc1", datetime(2026, 5, 4, 1, tzinfo=UTC)),
    # At half past eleven in the evening of the third, where this is asked.
    Point("rp_04bbbb", datetime(2026, 5, 3, 21, 30, tzinfo=UTC)),
    Point("rp_01aaaa", datetime(2026, 5, 1, 12, tzinfo=UTC)),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("latest", "rp_05ccc2"),
        ("rp_04", "rp_04bbbb"),
        ("RP_05CCC1", "rp_05ccc1"),
        ("today", "rp_05ccc2"),
        ("now", "rp_05ccc2"),
        ("yesterday", "rp_04bbbb"),
        ("2026-05-03", "rp_04bbbb"),
        ("sunday", "rp_04bbbb"),
        ("2026-05-02", "rp_01aaaa"),
        ("2026-05-04 03:00", "rp_05ccc1"),
        ("2026-05-04T01:00:00Z", "rp_05ccc1"),
        ("2h", "rp_05ccc1"),
        ("2 days ago", "rp_01aaaa"),
        ("1 day ago", "rp_01aaaa"),
        ("2 hours ago", "rp_05ccc1"),
    ],
)
def test_a_name_means_the_newest_point_at_or_before(name: str, expected: str) -> None:
    assert choose(POINTS, name, machine="web-01", now=NOW, local=east).id == expected


def test_an_id_that_is_the_beginning_of_another_is_still_itself() -> None:
    points = [Point("rp_0abc1", NOW), Point("rp_0abc", NOW)]
    assert choose(points, "rp_0abc", machine="web-01", now=NOW).id == "rp_0abc"


def test_what_begins_several_ids_is_refused_with_their_names() -> None:
    with pytest.raises(InvalidError, match=r"2 restore points: rp_05ccc2, rp_05ccc1"):
        choose(POINTS, "rp_05", machine="web-01", now=NOW)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("rp_99", NotFoundError, "stead backup ls web-01"),
        ("2026-04-01", NotFoundError, "the oldest is rp_01aaaa of 2026-05-01 14:00"),
        ("2027-01-01", InvalidError, "not in the future"),
        ("lately", InvalidError, "is no restore point"),
        ("", InvalidError, "is no restore point"),
        ("noday", InvalidError, "is no restore point"),
    ],
)
def test_what_means_no_point_is_an_error_with_a_next_step(
    name: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        choose(POINTS, name, machine="web-01", now=NOW, local=east)


def test_a_machine_without_points_says_how_to_make_one() -> None:
    with pytest.raises(NotFoundError, match="stead backup run web-01"):
        choose([], "latest", machine="web-01", now=NOW)
