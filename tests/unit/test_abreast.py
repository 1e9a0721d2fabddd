"""Calls beside one another: in order, never more than allowed, and an error ends them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from protocol.abreast import abreast


def test_so_many_are_under_way_and_answers_keep_their_order() -> None:
    meeting = threading.Barrier(3)

    def meet(item: int) -> int:
        meeting.wait(30)
        return -item

    assert list(abreast(meet, range(9), most=3)) == [-item for item in range(9)]


def test_no_more_are_taken_than_are_under_way() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(9):
            taken.append(item)
            yield item

    answers = abreast(str, items(), most=2)
    assert next(answers) == "0"
    assert taken == [0, 1]


def test_an_error_comes_in_its_turn_and_is_the_last() -> None:
    done = []
    hangs = threading.Event()

    def act(item: int) -> int:
        if item == 1:
            raise ValueError(item)
        if item > 1:
            hangs.wait()
        return item

    answers = abreast(act, range(99), most=3)
    done.append(next(answers))
    with pytest.raises(ValueError, match="1"):
        next(answers)
    # What hangs is not waited for.
    assert done == [0]
    hangs.set()
