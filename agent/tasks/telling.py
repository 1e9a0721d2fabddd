"""What the tasks tell, and to whom: a port."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from agent.host.spool import Spool
from protocol.ids import TaskId
from protocol.outcome import Outcome
from protocol.standing import Run


class Telling(Protocol):
    """Whoever tells the controller; see `agent.link.outbox`."""

    def started(self, task: TaskId, at: datetime, spool: Spool) -> None:
        """Execution begins."""

    def run(self, task: TaskId, run: Run, next_at: datetime | None) -> None:
        """A task that nobody offered: a run of a standing order, and when the next slot begins."""

    def printed(self) -> None:
        """There may be more output."""

    def ended(self, task: TaskId, outcome: Callable[[], Outcome]) -> None:
        """An outcome is durable."""

    def rejected(self, outcome: Outcome) -> None:
        """A task was never taken in."""

    def acknowledged(self, task: TaskId) -> Spool | None:
        """Forget a task."""
