"""What the journal knows of one order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.tasks.untold import Untold
from protocol.errors import Code, SteadError
from protocol.ids import OrderId, TaskId
from protocol.standing import Run


class JournalError(SteadError):
    """The journal cannot be read or written, so nothing may be executed."""

    code = Code.DATABASE_DAMAGED


class State(StrEnum):
    """How far an order has come."""

    ACCEPTED = "accepted"
    STARTED = "started"
    ENDED = "ended"
    ACKNOWLEDGED = "acknowledged"


@dataclass(slots=True)
class Entry:
    """What is known of one order. Places are offset and length in the file."""

    order: OrderId
    task: TaskId
    deliver_by: datetime
    repeatable: bool
    state: State
    accepted_place: tuple[int, int]
    started_at: datetime | None = None
    outcome_place: tuple[int, int] | None = None
    run: Run | None = None
    """Of which standing order this is a run; `deliver_by` is that one's end then."""
    untold: Untold | None = None
    """Runs before this one that are told in a sum with its outcome."""
