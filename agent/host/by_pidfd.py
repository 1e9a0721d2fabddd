"""Processes as Linux knows them: by the tick at which they began, held by a descriptor."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from pathlib import Path

from agent.host.naming import another
from protocol.errors import Code, NotFoundError, SteadError

assert sys.platform == "linux"

_STARTED = 19  # the 22nd field of /proc/PID/stat, counted behind the name


def identity_of(pid: int, *, proc: Path = Path("/proc")) -> str:
    """Tells this process from any other that has or will have its number.

    Ticks of the kernel's clock at which it began, and which boot that was: no clock that
    people set has a part in it. Raises NOT_FOUND when there is no such process.
    """
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
        boot = (proc / "sys/kernel/random/boot_id").read_text()
    except OSError:
        raise NotFoundError(f"there is no process {pid} any more") from None
    return f"{began(stat)}-{boot[:8]}"


def began(stat: bytes) -> int:
    """The tick at which a process began, from its `/proc/PID/stat`."""
    # "pid (any name) state parent ...", where the name may have blanks and brackets.
    return int(stat.rpartition(b") ")[2].split()[_STARTED])


def end(pid: int, tick: int) -> bool:
    """End the process that began at this tick, if it is still this one's number; whether it was."""
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        return error.errno == errno.ENOSYS and _end_by_number(pid)
    try:
        if began(Path(f"/proc/{pid}/stat").read_bytes()) != tick:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False  # it ended by itself, or it is somebody else's and so not ours
    finally:
        os.close(handle)
    return True


def _end_by_number(pid: int) -> bool:
    """Before Linux 5.3 there is no better way."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def send(pid: int, identity: str, name: str, within_s: float) -> bool:
    """Send a signal to the process of this identity; whether it ended in time."""
    try:
        # From here on the number is held: whatever is found behind it, the signal hits that.
        handle = os.pidfd_open(pid)
    except OSError as error:
        # A thread is no process, which releases of Linux say in different words.
        if error.errno not in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            raise
        raise NotFoundError(f"there is no process {pid} any more") from None
    try:
        found = identity_of(pid)
        if found != identity:
            raise another(pid, found, identity)
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
