"""Run what is to run after a backup, whatever became of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec

from agent.config import AgentHome
from agent.host.marked import end_marked
from agent.host.process import started
from agent.host.spool import Printed, Spool
from agent.tasks.by_set import by_set
from protocol.action import RunBackup
from protocol.errors import UNREADABLE, SteadError
from protocol.ids import TaskId
from protocol.outcome import Outcome, OutcomeState


async def run_after(
    home: AgentHome, task: TaskId, action: RunBackup, outcome: Outcome, spool: Spool
) -> Outcome:
    """The backup's outcome; PARTIAL when it was good and the program after it was not.

    The program learns the state and the restore point, if there is one, from
    STEAD_BACKUP_STATE and STEAD_POINT in its environment.
    """
    try:
        asked = by_set(action, home)
    except SteadError:
        return outcome  # there is no set that may be run, as the outcome says already
    if not isinstance(asked, RunBackup) or not asked.commands.after:
        return outcome
    problem = await _problem_of(task, asked, outcome, spool)
    if not problem:
        return outcome
    words = f"the command after the backup {problem}"
    message = f"{outcome.message}; {words}" if outcome.message else words
    good = outcome.state is OutcomeState.SUCCEEDED
    return replace(outcome, message=message, state=OutcomeState.PARTIAL if good else outcome.state)


async def _problem_of(task: TaskId, action: RunBackup, outcome: Outcome, spool: Spool) -> str:
    """What went wrong with it; empty when nothing did."""
    commands = action.commands
    told = {"STEAD_BACKUP_STATE": outcome.state.name.lower(), "STEAD_POINT": point_of(outcome)}
    try:
        async with started(
            commands.after,
            on_output=lambda fd, data: spool.append(Printed(fd), data),
            env=told,
            task=task,
        ) as child:
            child.give(b"", end=True)
            code = await child.ended(timedelta(seconds=commands.limit_s))
            if code is None:
                end_marked(task)
                return f"did not end within {commands.limit_s:g} s"
    except SteadError as error:
        return f"failed: {error}"
    return f"ended with {code}" if code else ""


def point_of(outcome: Outcome) -> str:
    """The restore point that an outcome tells of; empty when there is none."""
    if not outcome.result:
        return ""
    try:
        found = msgspec.json.decode(outcome.result)
    except UNREADABLE:
        return ""
    return str(found.get("point", "")) if isinstance(found, dict) else ""
