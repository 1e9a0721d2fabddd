"""What a mounted file system calls the restore points."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controller.cli.points.mounted import folder_names

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_names_sort_by_age_even_within_a_second() -> None:
    newest_first: list[datetime | None] = [
        NOON + timedelta(seconds=1),
        *[NOON + timedelta(milliseconds=m) for m in (9, 5, 1)],
    ]
    names = folder_names(newest_first)
    assert sorted(names, reverse=True) == names
    assert names[-1] == b"2026-05-01T12-00-00Z"


def test_a_name_stays_when_another_point_comes_in_the_same_second() -> None:
    before: list[datetime | None] = [NOON]
    assert folder_names([NOON, *before])[1:] == folder_names(before)


def test_points_without_a_time_have_names_too() -> None:
    assert folder_names([None, None]) == [b"unknown.2", b"unknown"]
