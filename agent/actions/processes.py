"""List processes, and send a signal to one.

Arguments are not shown: they hold secrets, and whoever may look need not see those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import psutil

from agent.actions.action import ActionResult, Workplace
from agent.host.signalling import ENDING, identity_of, signal_process
from agent.inventory.section import inert
from protocol.action import KillProcess, ListProcesses
from protocol.errors import Code, NotFoundError
from protocol.outcome import OutcomeState

MOST = 20_000
ENDS_WITHIN_S = 10.0

T = TypeVar("T")


def execute(action: ListProcesses | KillProcess, place: Workplace) -> ActionResult:
    """Do what was ordered with the processes of this machine."""
    del place
    if isinstance(action, KillProcess):
        return _kill(action)
    found = [row for row in listed() if action.name.lower() in row["name"].lower()]
    rows = sorted(found, key=lambda row: (-row["cpu_seconds"], row["pid"]))[:MOST]
    result = {"processes": rows, "left_out": len(found) - len(rows)}
    return ActionResult(OutcomeState.SUCCEEDED, result=msgspec.json.encode(result))


def listed() -> list[dict[str, Any]]:
    """Every process that is still there when it is looked at."""
    rows = []
    for process in psutil.process_iter():
        try:
            identity = identity_of(process.pid)
            with process.oneshot():
                times, memory = _told(process.cpu_times), _told(process.memory_info)
                rows.append(
                    {
                        "pid": process.pid,
                        "identity": identity,
                        "parent": _told(process.ppid) or 0,
                        # Which may be any bytes, and whoever runs it chooses them.
                        "name": inert(_told(process.name) or ""),
                        "user": inert(_told(process.username) or ""),
                        "state": _told(process.status) or "",
                        "cpu_seconds": round(times.user + times.system, 2) if times else 0.0,
                        "memory_bytes": memory.rss if memory else 0,
                    }
                )
        except (NotFoundError, psutil.NoSuchProcess):
            continue
    return rows


def _told(ask: Callable[[], T]) -> T | None:
    """What may be seen of a process; None where it may not be, or the system does not tell."""
    try:
        return ask()
    except psutil.NoSuchProcess:
        raise
    except (psutil.Error, OSError):
        return None


def _kill(action: KillProcess) -> ActionResult:
    ended = signal_process(
        action.pid,
        action.identity,
        action.signal,
        within_s=ENDS_WITHIN_S if action.signal in ENDING else 0.0,
    )
    result = msgspec.json.encode({"pid": action.pid, "signal": action.signal, "ended": ended})
    if ended or action.signal not in ENDING:
        return ActionResult(OutcomeState.SUCCEEDED, result=result)
    return ActionResult(
        OutcomeState.FAILED,
        result=result,
        code=Code.PRECONDITION,
        message=f"process {action.pid} got {action.signal} and was still there "
        f"{ENDS_WITHIN_S:g} s later; --signal KILL ends it for certain",
    )
