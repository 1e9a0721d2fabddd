"""The worker: one action in a short-lived process of its own.

The agent starts `stead-agent work`, writes a request on a line of the worker's
standard input and keeps that open. The worker answers with JSON lines on its standard
output, progress first and the result last. Another line on its standard input cancels.
When its standard input ends, the agent is gone, and the worker ends itself with
everything it started.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn

import msgspec

from agent.actions.action import ActionResult, Workplace
from agent.backup.send.control import Control
from agent.config import AgentHome
from agent.host.family import end_group
from agent.host.marked import end_marked
from agent.tasks.by_set import by_set
from agent.version import VERSION
from protocol.action import ACTIONS, Action, RunBackup, name_of
from protocol.errors import Code, SteadError
from protocol.ids import MachineId, TaskId, TenantId
from protocol.outcome import OutcomeState
from protocol.proxy import VARIABLES

MAX_RESULT_BYTES = 8 * 1024 * 1024


class Request(msgspec.Struct, frozen=True):
    """What a worker is to do. `fields` is the action's record.

    `handed` is the file with what was watched for a backup, empty when there is none.
    `version` is the agent's: a worker of another release does nothing.
    """

    version: str
    home: str
    tenant: str
    machine: str
    task: str
    action: str
    fields: msgspec.Raw
    handed: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line that a worker prints: progress, output for whoever ordered it, or the result."""

    progress: dict[str, Any] | None = None
    printed: bytes | None = None
    result: ActionResult | None = None


def worker_argv() -> tuple[str, ...]:
    """How this very program is started again as a worker."""
    if getattr(sys, "frozen", False):
        return (sys.executable, "work")
    return (sys.executable, "-m", "agent.cli", "work")


def worker_environment() -> dict[str, str]:
    """What a worker has of the agent's own environment: the way to the controller."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def encode_request(
    home: AgentHome,
    tenant: TenantId,
    machine: MachineId,
    task: TaskId,
    action: Action,
    *,
    handed: str = "",
) -> bytes:
    """The line that tells a worker what to do."""
    fields = msgspec.Raw(msgspec.json.encode(action))
    request = Request(
        VERSION, str(home.path), tenant, machine, task, name_of(action), fields, handed
    )
    return msgspec.json.encode(request) + b"\n"


def encode_cancel(by: str) -> bytes:
    """The line that tells a worker to end, and who wants it."""
    return " ".join(by.split()).encode() + b"\n"


def ended_by(by: str) -> str:
    """What the outcome of a cancelled task says."""
    return f"cancelled by {by} while it ran; what was done until then stays"


def work() -> None:
    """Be a worker."""
    # What a library prints by itself must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    line, _, early = _lines().partition(b"\n")
    if (refused := _other_release(line)) is not None:
        _say(answers, Answer(result=refused))
        return
    request = msgspec.json.decode(line, type=Request)
    action = msgspec.json.decode(request.fields, type=ACTIONS[request.action])
    control = Control()

    def progress(said: Mapping[str, Any]) -> None:
        _say(answers, Answer(progress=dict(said)))

    def printed(data: bytes) -> None:
        _say(answers, Answer(printed=data))

    def leave(result: ActionResult) -> NoReturn:
        _say(answers, Answer(result=result))
        _end(request.task)

    def cancel(by: str) -> None:
        control.cancel(lambda: leave(ActionResult(OutcomeState.CANCELLED, message=ended_by(by))))

    threading.Thread(
        target=_listen_to_agent, args=(request.task, cancel, early), name="agent", daemon=True
    ).start()
    _say(answers, Answer(result=_execute(request, action, progress, printed, leave, control)))


class _Asker(msgspec.Struct, frozen=True):
    """What every release says in a request."""

    version: str = ""


def _other_release(line: bytes) -> ActionResult | None:
    """The answer to an agent of another release, whose requests may mean something else."""
    asker = msgspec.json.decode(line, type=_Asker)
    if asker.version == VERSION:
        return None
    return ActionResult(
        OutcomeState.FAILED,
        code=Code.UPGRADE_REQUIRED,
        message=f"the running agent is of release {asker.version or 'unknown'} and its files by "
        f"now of {VERSION}; nothing was done: order it again once the agent has begun anew",
    )


def _lines() -> bytes:
    """What came, up to the end of a line; less at the end."""
    # Read from the descriptor itself: a thread that waits inside Python's own buffered
    # standard input holds its lock, and the interpreter cannot end without that.
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            break
        line += piece
    return line


def _say(answers: IO[bytes], answer: Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")


def _execute(
    request: Request, action: Action, progress: Any, printed: Any, leave: Any, control: Control
) -> ActionResult:
    from agent.actions.registry import execute

    try:
        place = replace(
            _workplace(request, progress), printed=printed, leave=leave, control=control
        )
        result = execute(by_set(action, place.home), place)
    except SteadError as error:
        state = OutcomeState.TIMED_OUT if error.code is Code.TIMED_OUT else OutcomeState.FAILED
        return ActionResult(state, code=error.code, message=str(error))
    if len(result.result) > MAX_RESULT_BYTES:
        return ActionResult(
            OutcomeState.FAILED,
            code=Code.LIMIT,
            message=f"the result has more than {MAX_RESULT_BYTES} bytes; ask for less at once",
        )
    return result


def _workplace(request: Request, progress: Any) -> Workplace:
    home = AgentHome(Path(request.home))

    def channel() -> Any:
        from agent.link.identity import open_channel

        return open_channel(home)

    def of_set() -> RunBackup:
        action = by_set(RunBackup(), home)
        assert isinstance(action, RunBackup)
        return action

    return Workplace(
        home=home,
        tenant=TenantId(request.tenant),
        machine=MachineId(request.machine),
        task=TaskId(request.task),
        channel=channel,
        progress=progress,
        handed=Path(request.handed) if request.handed else None,
        of_set=of_set,
    )


def _listen_to_agent(task: str, cancel: Callable[[str], None], early: bytes) -> None:
    said = early or _lines()
    while said.endswith(b"\n"):
        cancel(said.decode(errors="replace").rstrip())
        said = _lines()
    _end(task)


def _end(task: str) -> NoReturn:
    end_marked(task)
    end_group(os.getpid())
    os._exit(1)
