"""What every action is given, and what it gives back.

An action runs in a worker process of its own that the agent starts for one task: its
memory goes back to the system, and a bad one is killed, never the agent. The order
behind it has been verified and journalled before the worker starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import AgentHome
from protocol.ids import MachineId, TaskId, TenantId
from protocol.outcome import OutcomeState

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True, slots=True)
class Workplace:
    """What an action may use. `channel` opens a channel to the controller as this machine.

    `handed` is the file with what was watched since the last backup, if anything was.
    """

    home: AgentHome
    tenant: TenantId
    machine: MachineId
    task: TaskId
    channel: Callable[[], grpc.Channel]
    progress: Callable[[Mapping[str, Any]], None]
    handed: Path | None = None


@dataclass(frozen=True, slots=True)
class ActionResult:
    """How an action ended. `result` is JSON for scripts, `message` is for people."""

    state: OutcomeState
    result: bytes = b""
    code: str = ""
    message: str = ""
