"""Processes by an identity that no later one can have, and signals to just those."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from protocol.errors import Code, DeniedError, InvalidError, NotFoundError, SteadError

SIGNALS = ("TERM", "KILL", "INT", "HUP", "QUIT", "STOP", "CONT", "USR1", "USR2")
ENDING = frozenset({"TERM", "KILL", "INT", "QUIT"})
_STARTED = 19  # the 22nd field of /proc/PID/stat, counted behind the name


def identity_of(pid: int, *, proc: Path = Path("/proc")) -> str:
    """Tells this process from any other that has or will have its number.

    Ticks of the kernel's clock at which it began, and which boot that was: no clock that
    people set has a part in it. Raises NOT_FOUND when there is no such process.
    """
    try:
        stat = (proc / str(pid) / "stat").read_bytes().rpartition(b") ")[2].split()
        boot = (proc / "sys/kernel/random/boot_id").read_text()
    except OSError:
        raise NotFoundError(f"there is no process {pid} any more") from None
    return f"{int(stat[_STARTED])}-{boot[:8]}"


def signal_process(pid: int, identity: str, name: str, *, within_s: float) -> bool:
    """Send a signal to this very process; whether it ended within so many seconds.

    Raises INVALID for what is no signal, DENIED for what keeps this machine reachable,
    NOT_FOUND when that process is gone, also when its number is another's by now.
    """
    if name not in SIGNALS:
        raise InvalidError(f"{name[:20]!r} is no signal to send; {', '.join(SIGNALS)} are")
    if not 0 < pid < 2**31:
        raise InvalidError(f"{pid} is no process")
    if pid in {1, os.getpid(), os.getppid()}:
        raise DeniedError(
            f"process {pid} is init or the agent, without which nobody could reach this machine"
        )
    try:
        # From here on the number is held: whatever is found behind it, the signal hits that.
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        raise NotFoundError(f"there is no process {pid} any more") from None
    try:
        found = identity_of(pid)
        if found != identity:
            raise NotFoundError(
                f"process {pid} is another one by now ({found}, not {identity[:40]})"
            )
        signal.pidfd_send_signal(handle, signal.Signals[f"SIG{name}"])
        return bool(select.select([handle], [], [], within_s)[0])
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise SteadError(
            f"process {pid} is another user's: {error.strerror}", code=Code.PRECONDITION
        ) from error
    finally:
        os.close(handle)
