"""Processes by an identity that no later one can have, and signals to just those."""

from __future__ import annotations

import os
import sys

from agent.host.naming import needed
from protocol.errors import InvalidError

if sys.platform == "linux":
    from agent.host.by_pidfd import identity_of, send
else:
    from agent.host.by_psutil import identity_of, send

__all__ = ["ENDING", "SIGNALS", "identity_of", "signal_process"]

SIGNALS = ("TERM", "KILL", "INT", "HUP", "QUIT", "STOP", "CONT", "USR1", "USR2")
ENDING = frozenset({"TERM", "KILL", "INT", "QUIT"})


def signal_process(pid: int, identity: str, name: str, *, within_s: float) -> bool:
    """Send a signal to this very process; whether it ended within so many seconds.

    Raises INVALID for what is no signal, DENIED for what keeps this machine reachable,
    NOT_FOUND when that process is gone, also when its number is another's by now,
    UNSUPPORTED for what this system has nothing like.
    """
    if name not in SIGNALS:
        raise InvalidError(f"{name[:20]!r} is no signal to send; {', '.join(SIGNALS)} are")
    if not 0 < pid < 2**31:
        raise InvalidError(f"{pid} is no process")
    if pid in {1, os.getpid(), os.getppid()}:
        raise needed(pid)
    return send(pid, identity, name, within_s)
