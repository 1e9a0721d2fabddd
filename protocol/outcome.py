"""How a task ended: the one result that every task has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from protocol.errors import Code, SteadError
from protocol.ids import TaskId


class OutcomeState(StrEnum):
    """The ends that a task can come to."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task's end. `result` is the action's JSON, empty for programs. Times are UTC."""

    task: TaskId
    state: OutcomeState
    code: str = ""
    message: str = ""
    exit_code: int = 0
    result: bytes = b""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    output_truncated: bool = False


def rejected(task: TaskId, error: SteadError, at: datetime) -> Outcome:
    """The outcome of a task that was never started."""
    state = OutcomeState.EXPIRED if error.code is Code.EXPIRED else OutcomeState.REJECTED
    return Outcome(task, state, code=error.code, message=str(error), ended_at=at)
