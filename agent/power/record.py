"""What an agent must still know after the restart that it was told to bring about.

Which boot a machine is in says `agent.host.boot`. What became of an order is decided here,
purely; the record is a file for each task.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from agent.config import AgentHome
from agent.host.files import make_private_directory, read_if_there, write_atomically
from protocol.errors import UNREADABLE, Code
from protocol.ids import TaskId, check_id
from protocol.outcome import Outcome, OutcomeState


class Phase(StrEnum):
    """How far it came: it waits for its time, or the system has been told."""

    WAITING = "waiting"
    ORDERED = "ordered"


class Record(msgspec.Struct, frozen=True):
    """`boot` is the boot in which the task began."""

    verb: str
    boot: str
    phase: Phase


def keep_record(home: AgentHome, task: TaskId, record: Record) -> None:
    """Keep it durably: right after it the power may be gone."""
    make_private_directory(home.power)
    write_atomically(home.power / check_id("ts", task), msgspec.json.encode(record))


def load_record(home: AgentHome, task: TaskId) -> Record | None:
    """The task's record; None when it has none that can be read."""
    told = read_if_there(home.power / check_id("ts", task))
    if told is None:
        return None
    try:
        return msgspec.json.decode(told, type=Record)
    except UNREADABLE:
        return None


def remove_records(home: AgentHome) -> None:
    """Remove all records; once every task that has one got its outcome."""
    if home.power.is_dir():
        for path in sorted(home.power.iterdir()):
            path.unlink(missing_ok=True)


def outcome_after(
    task: TaskId, record: Record, *, boot: str, started_at: datetime | None, now: datetime
) -> Outcome:
    """What became of an order to restart or switch off, seen by the next agent.

    >>> from datetime import UTC
    >>> told = Record("reboot", "a", Phase.ORDERED)
    >>> noon = datetime(2026, 5, 4, 12, tzinfo=UTC)
    >>> outcome_after(TaskId("ts"), told, boot="b", started_at=None, now=noon).state.value
    'succeeded'
    """
    restarted = record.boot != boot
    state, code = OutcomeState.FAILED, str(Code.PRECONDITION)
    if record.phase is Phase.ORDERED and restarted:
        state, code = OutcomeState.SUCCEEDED, ""
        message = "the machine was restarted" if record.verb == "reboot" else "it is on again"
    elif record.phase is Phase.ORDERED:
        message = f"the system was told to {record.verb}, and the agent was stopped; it is still up"
    elif restarted:
        message = "something else restarted the machine before the time came"
    else:
        message = "the agent was stopped before the time came; nothing was done"
    return Outcome(task, state, code, message, started_at=started_at, ended_at=now)
