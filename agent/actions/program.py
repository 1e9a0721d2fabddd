"""Run one program: check what was asked for, and read how it ended. Pure."""

from __future__ import annotations

import dataclasses
import os
import signal

from agent.host.process import TASK_VARIABLE
from protocol.action import RunProgram
from protocol.errors import Code, InvalidError
from protocol.ids import TaskId
from protocol.outcome import Outcome, OutcomeState


def checked_program(action: RunProgram) -> RunProgram:
    """The action with its defaults filled in; `InvalidError` when it cannot be started."""
    if not action.argv or not action.argv[0]:
        raise InvalidError("the order names no program")
    words = [*action.argv, action.directory, *action.environment, *action.environment.values()]
    if any("\0" in word for word in words):
        raise InvalidError("a program's arguments, environment and directory have no NUL")
    if any("=" in name or not name or name == TASK_VARIABLE for name in action.environment):
        raise InvalidError("the order's environment has a name that cannot be set")
    directory = action.directory or os.sep
    if not os.path.isabs(directory):  # noqa: PTH117 - a text, for the machine to interpret
        raise InvalidError(f"{directory[:200]!r} is not an absolute path")
    return dataclasses.replace(action, directory=directory)


def outcome_of_program(task: TaskId, code: int) -> Outcome:
    """How a program ended, by its exit code; negative when a signal ended it."""
    if code == 0:
        return Outcome(task, OutcomeState.SUCCEEDED)
    message = f"ended with exit code {code}"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        message = f"was ended by {name}"
    return Outcome(
        task, OutcomeState.FAILED, code=Code.PRECONDITION, message=message, exit_code=code
    )
