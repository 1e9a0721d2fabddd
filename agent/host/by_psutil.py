"""Processes as psutil sees them, for systems that have neither /proc nor pidfd.

Nothing in here is Linux' or another's own, so that it is tried where it is not used.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator

import psutil

from agent.host.naming import Seen, another, needed
from protocol.errors import Code, NotFoundError, SteadError


def identity_of(pid: int) -> str:
    """Tells this process from any other that has or will have its number: when it began.

    Raises NOT_FOUND when there is no such process; empty when it may not be looked at.
    """
    try:
        return f"{round(psutil.Process(pid).create_time() * 1_000_000)}"
    except psutil.NoSuchProcess:
        raise NotFoundError(f"there is no process {pid} any more") from None
    except psutil.AccessDenied:
        return ""


def act_of(process: psutil.Process, name: str, system: str) -> Callable[[], None]:
    """What a signal is on a system; UNSUPPORTED where it has none like it.

    psutil looks again, before each act, whether the number is still this process's.
    """
    if system != "win32":
        return lambda: process.send_signal(signal.Signals[f"SIG{name}"])
    acts = {
        "TERM": process.kill,
        "KILL": process.kill,
        "STOP": process.suspend,
        "CONT": process.resume,
    }
    if name not in acts:
        raise SteadError(
            f"Windows has no {name}; TERM and KILL end a process there, STOP and CONT let it rest",
            code=Code.UNSUPPORTED,
        )
    return acts[name]


def send(
    pid: int, identity: str, name: str, within_s: float, *, system: str = sys.platform
) -> bool:
    """Send a signal to the process of this identity; whether it ended in time."""
    found = identity_of(pid)
    if not identity or found != identity:
        raise another(pid, found, identity)
    try:
        process = psutil.Process(pid)
        if process in psutil.Process().parents():
            raise needed(pid)
        act_of(process, name, system)()
        process.wait(within_s)
    except psutil.TimeoutExpired:
        return False
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied as error:
        raise SteadError(
            f"process {pid} is another user's, or the system's: {error}", code=Code.PRECONDITION
        ) from error
    return True


def with_mark(name: str, value: str) -> Iterator[Seen[float]]:
    """Each living process, and whether this is in its environment."""
    for process in psutil.process_iter(["pid", "ppid", "status", "environ", "create_time"]):
        # What may not be looked at is None: it has no mark that is ours.
        said = process.info
        if said["status"] != psutil.STATUS_ZOMBIE:
            has_mark = (said["environ"] or {}).get(name) == value
            yield Seen(said["pid"], said["ppid"] or 0, said["create_time"] or 0.0, has_mark)


def end(pid: int, created: float) -> bool:
    """End the process that was made at this time, if it is still this one's number; whether it
    was.
    """
    try:
        process = psutil.Process(pid)
        if process.create_time() != created:
            return False
        process.kill()
    except (psutil.Error, OSError):
        return False
    return True
