"""Processes as they were seen, and what is said of those that are not hit."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from protocol.errors import DeniedError, NotFoundError

B = TypeVar("B")


class Seen(NamedTuple, Generic[B]):
    """A process, its parent, when it began as its system tells that, and whether it is a task's."""

    pid: int
    parent: int
    began: B
    has_mark: bool


def needed(pid: int) -> DeniedError:
    """Nobody could reach this machine without it."""
    return DeniedError(
        f"process {pid} is init or the agent, without which nobody could reach this machine"
    )


def another(pid: int, found: str, identity: str) -> NotFoundError:
    """Its number is another's by now."""
    return NotFoundError(f"process {pid} is another one by now ({found}, not {identity[:40]})")
