"""Answers of a call are read where Ctrl-C cannot hit gRPC."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import grpc
import pytest

from controller.cli.operator.streams import AHEAD, answers_of


class Lost(grpc.RpcError):
    """What a call ends with."""


class Call:
    """A call that gives numbers, and notes who takes them; then it waits, or ends."""

    def __init__(self, count: int, ends: grpc.RpcError | None = None) -> None:
        self.count, self.ends = count, ends
        self.given = 0
        self.threads: set[threading.Thread] = set()
        self.waits = threading.Event()
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[int]:
        while self.given < self.count:
            self.threads.add(threading.current_thread())
            self.given += 1
            yield self.given
        if self.ends is not None:
            raise self.ends
        self.waits.wait()

    def cancel(self) -> None:
        self.cancelled.set()
        self.waits.set()


def test_every_answer_comes_in_order_and_the_end_is_told() -> None:
    call, taken = Call(100, Lost()), list[int]()
    answers = answers_of(call)
    taken += [next(answers) for _ in range(100)]
    with pytest.raises(Lost):
        next(answers)
    assert taken == list(range(1, 101))
    assert call.cancelled.is_set()
    assert threading.main_thread() not in call.threads


def test_no_more_is_taken_ahead_than_there_is_room_for() -> None:
    call = Call(10_000)
    with closing(answers_of(call)) as answers:
        assert next(answers) == 1
        # One more is in the hands of who waits for room.
        assert call.given <= AHEAD + 2
    assert call.cancelled.is_set()


def test_ctrl_c_comes_as_itself_and_the_call_is_cancelled() -> None:
    call, (heard, tell) = Call(3), os.pipe()

    def press() -> None:
        os.read(heard, 1)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    with pytest.raises(KeyboardInterrupt):
        _read_through(call, tell)
    finger.join()
    assert call.cancelled.is_set()
    os.close(heard)
    os.close(tell)


def _read_through(call: Call, tell: int) -> list[int]:
    taken = []
    with closing(answers_of(call)) as answers:
        for answer in answers:
            taken.append(answer)
            if len(taken) == call.count:
                os.write(tell, b"x")
    return taken
