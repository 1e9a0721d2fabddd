"""What holds of every plan to forget, whatever the points and the rules are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from controller.vault.forget.retention import Candidate, Rules, keeps_anything, plan_forgetting

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
COUNTS = st.integers(0, 5)
MOSTLY_DAMAGED = [
    Candidate(f"rp_{day}", NOW - timedelta(days=day), fault="damaged" if day < 4 else "")
    for day in range(8)
]


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    hours = draw(st.lists(st.integers(-50, 24 * 900), max_size=40, unique=True))
    return [
        Candidate(
            f"rp_{number}",
            NOW - timedelta(hours=hour),
            frozenset(draw(st.sets(st.sampled_from(["a", "b"])))),
            draw(st.sampled_from(["", "", "", "a lawsuit"])),
            draw(st.sampled_from(["", "", "damaged"])),
        )
        for number, hour in enumerate(hours)
    ]


def rules() -> st.SearchStrategy[Rules]:
    return st.builds(
        Rules,
        last=COUNTS,
        hourly=COUNTS,
        daily=COUNTS,
        weekly=COUNTS,
        monthly=COUNTS,
        yearly=COUNTS,
        within_s=st.integers(0, 86_400 * 30),
        tags=st.sampled_from([(), ("a",)]),
        zone=st.sampled_from(["UTC", "Europe/Vienna", "Pacific/Apia"]),
        floor=st.integers(1, 6),
    )


@given(points=candidates(), by=rules())
def test_every_point_gets_one_verdict_with_a_reason(points: list[Candidate], by: Rules) -> None:
    plan = plan_forgetting(points, by, now=NOW)
    assert sorted(one.point for one in plan) == sorted(one.id for one in points)
    assert all(one.reasons for one in plan)
    assert plan == sorted(plan, key=lambda one: one.received_at, reverse=True)


@given(points=candidates(), by=rules())
def test_as_many_good_points_stay_as_the_floor_says(points: list[Candidate], by: Rules) -> None:
    plan = plan_forgetting(points, by, now=NOW)
    kept = {one.point for one in plan if one.is_kept}
    good = {one.id for one in points if not one.fault}
    assert len(kept & good) >= min(by.floor, len(good))
    assert len(kept) >= min(by.floor, len(points))


@given(points=candidates(), by=rules())
def test_holds_tags_the_newest_and_the_future_stay(points: list[Candidate], by: Rules) -> None:
    kept = {one.point for one in plan_forgetting(points, by, now=NOW) if one.is_kept}
    newest = max(points, key=lambda one: one.received_at, default=None)
    for one in points:
        if one.hold or one.tags & set(by.tags) or one is newest or one.received_at > NOW:
            assert one.id in kept


@given(points=candidates(), by=rules())
@example(points=MOSTLY_DAMAGED, by=Rules(daily=3, floor=1))
def test_a_damaged_point_takes_no_good_points_place(points: list[Candidate], by: Rules) -> None:
    kept = {one.point for one in plan_forgetting(points, by, now=NOW) if one.is_kept}
    good = [one for one in points if not one.fault]
    for one in plan_forgetting(good, by, now=NOW):
        if any("day " in why or "year " in why or "last " in why for why in one.reasons):
            assert one.point in kept


@given(points=candidates(), by=rules())
def test_a_second_plan_forgets_nothing_more(points: list[Candidate], by: Rules) -> None:
    kept = {one.point for one in plan_forgetting(points, by, now=NOW) if one.is_kept}
    left = [one for one in points if one.id in kept]
    assert all(one.is_kept for one in plan_forgetting(left, by, now=NOW))


@given(points=candidates())
def test_without_rules_everything_stays(points: list[Candidate]) -> None:
    assert not keeps_anything(Rules())
    assert all(one.is_kept for one in plan_forgetting(points, Rules(), now=NOW))


def test_the_hour_that_a_clock_shows_twice_is_two_hours() -> None:
    # Clocks in Vienna go back at 01:00 UTC: 02:30 comes twice.
    twice = [
        Candidate("rp_1", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        Candidate("rp_2", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    ]
    plan = plan_forgetting(twice, Rules(hourly=2, floor=1, zone="Europe/Vienna"), now=NOW)
    assert [one.is_kept for one in plan] == [True, True]


def test_a_day_begins_where_the_zone_says() -> None:
    late = [
        Candidate("rp_1", datetime(2026, 5, 1, 21, 0, tzinfo=UTC)),
        Candidate("rp_2", datetime(2026, 5, 1, 23, 0, tzinfo=UTC)),
    ]
    by = Rules(daily=2, floor=1, zone="UTC")
    assert [one.is_kept for one in plan_forgetting(late, by, now=NOW)] == [True, False]
    by = Rules(daily=2, floor=1, zone="Europe/Vienna")
    assert [one.is_kept for one in plan_forgetting(late, by, now=NOW)] == [True, True]


def test_damage_of_before_the_periods_that_are_kept_is_not_kept() -> None:
    """A rule of two days reaches back two good days, and what is damaged among those."""
    points = [
        Candidate(f"rp_{day}", NOW - timedelta(days=day), fault="damaged" if day in {2, 5} else "")
        for day in (1, 2, 3, 5)
    ]
    plan = plan_forgetting(points, Rules(daily=2, floor=1), now=NOW)
    assert {one.point for one in plan if one.is_kept} == {"rp_1", "rp_2", "rp_3"}


def test_a_span_is_kept_to_its_very_end() -> None:
    day = 86_400
    points = [Candidate(f"rp_{s}", NOW - timedelta(seconds=s)) for s in (0, day, day + 1)]
    plan = plan_forgetting(points, Rules(within_s=day, floor=1), now=NOW)
    assert [one.is_kept for one in plan] == [True, True, False]
