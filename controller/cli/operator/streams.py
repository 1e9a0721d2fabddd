"""Read the answers of a call in a thread of its own, where Ctrl-C cannot hit gRPC.

An interrupt inside gRPC's waiting for the next answer can take a lock from it, or leave it one:
then the command ends with another error, or not at all. What waits here instead is a queue that
an interrupt leaves as it was (`queue.SimpleQueue` is one step to the interpreter).
"""

from __future__ import annotations

import _thread
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Protocol, TypeVar

import grpc

Answer_co = TypeVar("Answer_co", covariant=True)
AHEAD = 16
"""Answers that are taken from the call before anybody has read them."""


class Call(Protocol[Answer_co]):
    """A call whose answers come one after the other, as gRPC's stubs return it."""

    def __iter__(self) -> Iterator[Answer_co]:
        """The answers; raises `grpc.RpcError` where the call fails."""

    def cancel(self) -> object:
        """End the call, from whichever thread."""


def answers_of(call: Call[Answer_co]) -> Generator[Answer_co, None, None]:
    """The answers of a call as they come. Raises what the call ends with.

    Whoever stops reading cancels the call by closing this, as `for` does at its end.
    """
    got: SimpleQueue[Answer_co | None] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()
    ended: list[grpc.RpcError] = []
    for _ in range(AHEAD):
        room.put(None)

    def read() -> None:
        try:
            for answer in call:
                room.get()
                got.put(answer)
        except grpc.RpcError as error:
            ended.append(error)
        got.put(None)

    try:
        # Not `threading.Thread`, whose start waits for it in a way that an interrupt breaks.
        _thread.start_new_thread(read, ())
        while (answer := got.get()) is not None:
            room.put(None)
            yield answer
        for error in ended:
            raise error
    finally:
        call.cancel()
