"""What became of a task that ran when an agent was stopped."""

from __future__ import annotations

from datetime import datetime

from agent.config import AgentHome
from agent.host.boot import boot_id
from agent.power.record import load_record, outcome_after
from agent.tasks.entry import Entry
from protocol.errors import Code
from protocol.outcome import Outcome, OutcomeState


def interrupted(home: AgentHome, entry: Entry, now: datetime) -> Outcome:
    """The outcome of a task that was begun and whose end nobody saw."""
    record = load_record(home, entry.task)
    if record is not None:
        return outcome_after(
            entry.task, record, boot=boot_id(), started_at=entry.started_at, now=now
        )
    return Outcome(
        entry.task,
        OutcomeState.INDETERMINATE,
        code=Code.INTERNAL,
        message="the agent was stopped while this was executed; how far it came is not "
        "known, and it is not repeated by itself",
        started_at=entry.started_at,
        ended_at=now,
    )
