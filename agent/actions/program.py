"""Run one program: check what was asked for, and read how it ended. Pure."""

from __future__ import annotations

import dataclasses
import os
import signal

from agent.host.environment import TOP
from agent.host.family import KILLED
from agent.host.process import TASK_VARIABLE
from protocol.action import RunProgram
from protocol.errors import Code, InvalidError
from protocol.ids import TaskId
from protocol.limits import Limits
from protocol.outcome import Outcome, OutcomeState

LEAST_MEMORY_BYTES = 16 * 1024 * 1024
MOST_MEMORY_BYTES = 2**60
MOST_CPU_PERCENT = 100 * 4096
MOST_NICE = 19
MOST_EXIT_CODE = 2**31 - 1


def checked_program(action: RunProgram) -> RunProgram:
    """The action with its defaults filled in; `InvalidError` when it cannot be started."""
    if not action.argv or not action.argv[0]:
        raise InvalidError("the order names no program")
    words = [*action.argv, action.directory, *action.environment, *action.environment.values()]
    if any("\0" in word for word in words):
        raise InvalidError("a program's arguments, environment and directory have no NUL")
    if any("=" in name or not name or name == TASK_VARIABLE for name in action.environment):
        raise InvalidError("the order's environment has a name that cannot be set")
    directory = action.directory or TOP
    if not os.path.isabs(directory):  # noqa: PTH117 - a text, for the machine to interpret
        raise InvalidError(f"{directory[:200]!r} is not an absolute path")
    check_limits(action.limits)
    return dataclasses.replace(action, directory=directory)


def check_limits(limits: Limits) -> None:
    """Raise `InvalidError` for limits that no program could live with, or that are none."""
    if 0 < limits.memory_bytes < LEAST_MEMORY_BYTES:
        raise InvalidError(f"a program needs {LEAST_MEMORY_BYTES} bytes of memory at least")
    if limits.memory_bytes > MOST_MEMORY_BYTES:
        raise InvalidError(f"a limit of memory is {MOST_MEMORY_BYTES} bytes at most")
    if limits.cpu_percent > MOST_CPU_PERCENT:
        raise InvalidError(f"a limit of the processor is {MOST_CPU_PERCENT} % at most")
    if limits.nice > MOST_NICE:
        raise InvalidError(f"nice goes from 0 to {MOST_NICE}")


def over_memory(task: TaskId, limits: Limits) -> Outcome:
    """How a program ended that took more memory than it might."""
    message = f"was ended for taking more than {limits.memory_bytes} bytes of memory"
    return Outcome(task, OutcomeState.FAILED, Code.LIMIT, message, exit_code=KILLED)


def outcome_of_program(task: TaskId, code: int) -> Outcome:
    """How a program ended, by its exit code; negative when a signal ended it.

    Windows has 32 bits for a code, and the outcome has them with a sign: 0xC0000005 is kept as
    -1073741819.
    """
    if code == 0:
        return Outcome(task, OutcomeState.SUCCEEDED)
    message = f"ended with exit code {code}"
    if code > MOST_EXIT_CODE:
        # One of Windows: its own errors are spoken of in these digits.
        message = f"ended with exit code 0x{code:08X}"
        code -= 2**32
    elif code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        message = f"was ended by {name}"
    return Outcome(
        task, OutcomeState.FAILED, code=Code.PRECONDITION, message=message, exit_code=code
    )
