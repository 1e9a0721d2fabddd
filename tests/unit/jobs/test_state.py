from __future__ import annotations

import itertools

from controller.jobs.state import OPEN, PRESUMED, is_over, may_follow
from protocol.outcome import OutcomeState

OUTCOMES = tuple(OutcomeState)


def test_a_task_that_is_over_stays_as_it_is() -> None:
    for ended, following in itertools.product(OUTCOMES, (*OPEN, *OUTCOMES)):
        assert is_over(ended)
        assert not may_follow(ended, "", following)


def test_only_a_presumed_end_gives_way_to_the_truth() -> None:
    for following in OUTCOMES:
        assert may_follow("indeterminate", PRESUMED, following)
        assert not may_follow("failed", PRESUMED, following)
    assert not may_follow("indeterminate", PRESUMED, "running")


def test_every_open_task_can_end_in_every_way() -> None:
    for state, following in itertools.product(OPEN, OUTCOMES):
        assert may_follow(state, "", following)


def test_no_task_goes_back() -> None:
    assert not may_follow("running", "", "offered")
    assert not may_follow("offered", "", "queued")
