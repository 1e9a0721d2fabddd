"""Everything is looked at in time, whatever the controller does meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.vault.scrub import pace
from controller.vault.scrub.pace import PROMISE, SPAN, Round, due_at, most_urgent, rest_s

START = datetime(2026, 5, 1, tzinfo=UTC)
SIZES = st.lists(st.integers(1, 1 << 26), min_size=1, max_size=60)


def finished_at(sizes: list[int], on: timedelta, off: timedelta) -> datetime:
    """When a round ends of a controller that is on and off by turns."""
    now, done = START, 0
    for size in sizes:
        due = max(now, due_at(Round("tn", START, True, done, sum(sizes)), now))
        # Asleep until the next time that it is on.
        into = (due - START) % (on + off)
        now = due if into < on else due + (on + off - into)
        done += size
    return now


@given(sizes=SIZES)
def test_a_round_is_spread_over_its_span_and_not_longer(sizes: list[int]) -> None:
    ended = finished_at(sizes, timedelta(days=1), timedelta())
    last = sizes[-1] / sum(sizes)
    assert ended - START <= SPAN
    assert ended - START >= SPAN * (1 - last) - timedelta(seconds=1)


@given(sizes=SIZES, hours=st.integers(1, 24 * 7))
def test_who_is_off_half_of_the_time_keeps_the_promise(sizes: list[int], hours: int) -> None:
    ended = finished_at(sizes, timedelta(hours=hours), timedelta(hours=hours))
    # The next round begins a span after this one did: a pack waits for two ends at most.
    assert ended - START <= PROMISE


def test_the_tenant_that_is_most_behind_comes_first() -> None:
    now = START + timedelta(days=3)
    rounds = [
        Round("tn_1", START, True, 50, 100),
        Round("tn_2", START, True, 10, 100),
        Round("tn_3", START, False, 100, 100),
    ]
    found = most_urgent(rounds, now)
    assert found is not None
    assert (found[0].tenant, found[1]) == ("tn_2", timedelta())
    assert most_urgent([], now) is None


@given(back=st.timedeltas(timedelta(seconds=1), timedelta(days=4000)))
def test_a_clock_that_was_set_back_puts_nothing_off(back: timedelta) -> None:
    one = Round("tn_1", START, False, 100, 100)
    assert due_at(one, START - back) <= START


@given(size=st.integers(0, 1 << 30), took=st.floats(0, 100))
def test_catching_up_leaves_the_disk_to_others(size: int, took: float) -> None:
    rest = rest_s(size, took)
    assert rest >= 0
    assert (took + rest) * pace.CATCH_UP_BYTES_S >= size - 1
