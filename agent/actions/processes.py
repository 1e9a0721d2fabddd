"""List processes, and send a signal to one.

Arguments are not shown: they hold secrets, and whoever may look need not see those.
"""

from __future__ import annotations

from typing import Any

import msgspec
import psutil

from agent.actions.action import ActionResult, Workplace
from agent.host.signalling import ENDING, identity_of, signal_process
from protocol.action import KillProcess, ListProcesses
from protocol.errors import Code, NotFoundError
from protocol.outcome import OutcomeState

MOST = 20_000
ENDS_WITHIN_S = 10.0
_ATTRIBUTES = ["pid", "ppid", "name", "username", "status", "cpu_times", "memory_info"]


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
    for process in psutil.process_iter(_ATTRIBUTES):
        said = process.info
        try:
            identity = identity_of(said["pid"])
        except NotFoundError:
            continue
        times, memory = said["cpu_times"], said["memory_info"]
        rows.append(
            {
                "pid": said["pid"],
                "identity": identity,
                "parent": said["ppid"] or 0,
                "name": said["name"] or "",
                "user": said["username"] or "",
                "state": said["status"] or "",
                "cpu_seconds": round(times.user + times.system, 2) if times else 0.0,
                "memory_bytes": memory.rss if memory else 0,
            }
        )
    return rows


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
