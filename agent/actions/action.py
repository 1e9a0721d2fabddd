"""What every action is given, and what it gives back.

An action runs in a worker process of its own that the agent starts for one task: its
memory goes back to the system, and a bad one is killed, never the agent. The order
behind it has been verified and journalled before the worker starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from agent.backup.send.control import Control
from agent.config import AgentHome
from protocol.action import RunBackup
from protocol.errors import NotFoundError, SteadError
from protocol.ids import MachineId, TaskId, TenantId
from protocol.outcome import OutcomeState

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True, slots=True)
class ActionResult:
    """How an action ended. `result` is JSON for scripts, `message` is for people."""

    state: OutcomeState
    result: bytes = b""
    code: str = ""
    message: str = ""


def _stay(result: ActionResult) -> NoReturn:
    raise SteadError(f"this process cannot be left: {result.message}")


def _no_set() -> RunBackup:
    raise NotFoundError("this machine has no backup set")


def _nowhere(data: bytes) -> None:
    raise SteadError(f"nobody reads here: {data[:80]!r}")


@dataclass(frozen=True, slots=True)
class Workplace:
    """What an action may use. `channel` opens a channel to the controller as this machine.

    `handed` is the file with what was watched since the last backup, if anything was.
    `of_set` is a backup as the machine's backup set has it, NOT_FOUND without one.
    `printed` shows something to whoever ordered it, as output of the task.
    `leave` ends the process at once, with this result. `control` knows when that is too late.
    """

    home: AgentHome
    tenant: TenantId
    machine: MachineId
    task: TaskId
    channel: Callable[[], grpc.Channel]
    progress: Callable[[Mapping[str, Any]], None]
    handed: Path | None = None
    printed: Callable[[bytes], None] = _nowhere
    leave: Callable[[ActionResult], NoReturn] = _stay
    of_set: Callable[[], RunBackup] = _no_set
    control: Control = field(default_factory=Control)
