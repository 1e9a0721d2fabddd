"""What the journal and the spools hold of tasks: keep output, tell outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.config import AgentHome
from agent.host import clock, log
from agent.host.spool import Spool
from agent.tasks.entry import Entry, JournalError, State
from agent.tasks.journal import Journal
from agent.tasks.telling import Telling
from agent.tasks.untold import render
from protocol.errors import SteadError
from protocol.ids import OrderId, TaskId
from protocol.outcome import Outcome, OutcomeState

RUN_OUTPUT_BYTES = 1024 * 1024
RUNS_WITH_OUTPUT = 50
"""Of so many runs that nobody has heard of yet, output is kept: a machine may be away long."""


@dataclass(frozen=True, slots=True)
class Stored:
    """See the module. `journal` is an error when the journal cannot be relied on."""

    home: AgentHome
    journal: Journal | JournalError
    telling: Telling

    def spool(self, order: OrderId, task: TaskId) -> Spool:
        """Where a task's output goes; raises STORE_FULL when it cannot be kept."""
        assert isinstance(self.journal, Journal)
        entry = self.journal.of_order(order)
        if entry is None or entry.run is None:
            return Spool(self.home.output, task)
        kept = sum(1 for _ in self.home.output.iterdir())
        room = RUN_OUTPUT_BYTES if kept < RUNS_WITH_OUTPUT else 0
        return Spool(self.home.output, task, limit=room)

    def tell_run(self, entry: Entry) -> None:
        """Say of a run of a standing order that it is one."""
        if entry.run is not None and entry.state is not State.ACKNOWLEDGED:
            self.telling.run(entry.task, entry.run, None)

    def tell_output(self, entry: Entry) -> None:
        """Tell what an earlier agent had kept of a task's output."""
        if entry.started_at is None:
            return
        try:
            spool = Spool(self.home.output, entry.task)
        except SteadError as error:
            log.warning("output_not_told", task=entry.task, reason=str(error))
            return
        self.telling.started(entry.task, entry.started_at, spool)

    def forget(self, task: TaskId) -> None:
        """Keep nothing more of a task of which there is nothing left to tell."""
        spool = self.telling.acknowledged(task)
        if spool is not None:
            spool.remove()

    def tell_end(self, entry: Entry) -> None:
        """Tell the outcome of an order that has ended."""
        task, order = entry.task, entry.order
        self.telling.ended(task, lambda: self._outcome(task, order))

    def _outcome(self, task: TaskId, order: OrderId) -> Outcome:
        # Looked up anew each time: pruning writes the file anew, and places change.
        assert isinstance(self.journal, Journal)
        entry = self.journal.of_order(order)
        if entry is None:
            return cannot_tell(task, JournalError("the order was so long ago that it is forgotten"))
        try:
            outcome = self.journal.outcome_of(entry)
        except JournalError as error:
            log.warning("outcome_unreadable", task=task, reason=str(error))
            return cannot_tell(task, error)
        if entry.untold is None:
            return outcome
        words = filter(None, (outcome.message, render(entry.untold)))
        return replace(outcome, message="; ".join(words))


def cannot_tell(task: TaskId, error: JournalError) -> Outcome:
    """For a task that may have been executed before: to call it rejected could be untrue."""
    return Outcome(task, OutcomeState.INDETERMINATE, error.code, str(error), ended_at=clock.now())
