from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.link import backoff

CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10**6), CHANCE)
def test_the_wait_is_never_longer_than_five_minutes(failures: int, chance: float) -> None:
    assert timedelta() <= backoff.wait_after(failures, chance=chance) <= timedelta(minutes=5)


def test_the_window_doubles_from_one_second() -> None:
    almost = [backoff.wait_after(n, chance=1.0).total_seconds() for n in range(1, 12)]
    assert almost == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.timedeltas(timedelta(), timedelta(days=9)), CHANCE)
def test_a_drained_agent_returns_within_the_window(within: timedelta, chance: float) -> None:
    wait = backoff.wait_when_drained(within, chance=chance)
    assert wait <= min(max(within, timedelta(seconds=1)), timedelta(minutes=5))


def test_who_drains_again_and_again_is_asked_ever_less_often() -> None:
    within = timedelta(seconds=1)
    waits = [
        backoff.wait_when_drained(within, chance=1.0, failures=count).total_seconds()
        for count in (0, 1, 2, 5, 20)
    ]
    assert waits == [1, 1, 2, 16, 300]
    named = timedelta(minutes=2)
    assert backoff.wait_when_drained(named, chance=1.0, failures=2) == named


def test_drained_agents_spread_over_the_window() -> None:
    within = timedelta(seconds=40)
    waits = [backoff.wait_when_drained(within, chance=chance) for chance in (0.0, 0.25, 0.5)]
    assert waits == [timedelta(), timedelta(seconds=10), timedelta(seconds=20)]


def test_only_a_minute_of_health_makes_failures_forgotten() -> None:
    assert backoff.failures_after(5, timedelta(seconds=59)) == 6
    assert backoff.failures_after(5, timedelta(seconds=60)) == 1
