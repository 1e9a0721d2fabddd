"""Several calls under way at once, their answers in order.

A piece at a time would wait for the line, for the disk and for the processor in turn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def abreast(act: Callable[[T], R], items: Iterable[T], *, most: int) -> Iterator[R]:
    """What `act` gives for each item, in their order, with at most `most` of them under way.

    Items are taken by who iterates, and none after the one whose answer is an error, which
    is raised in its turn. Nobody waits then for what is still under way, nor does the
    process for its end: a call may hang for minutes.

    >>> list(abreast(str.upper, "abc", most=2))
    ['A', 'B', 'C']
    """
    under_way: deque[Future[R]] = deque()
    for item in items:
        answer: Future[R] = Future()
        threading.Thread(target=_answer, args=(answer, act, item), daemon=True).start()
        under_way.append(answer)
        if len(under_way) == most:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _answer(answer: Future[R], act: Callable[[T], R], item: T) -> None:
    try:
        answer.set_result(act(item))
    except BaseException as error:  # noqa: BLE001 - raised to who iterates
        answer.set_exception(error)
