"""Tell systemd how the service is: sd_notify(3), which is one datagram to a socket."""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from typing import Final

_WITHIN_S: Final = 1.0
"""systemd that takes nothing just now must not stop the agent's own event loop."""


def notify(message: str) -> bool:
    """Send for example `READY=1` or `STATUS=...`; False when nobody asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if sys.platform != "linux" or not address.startswith(("/", "@")):
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(_WITHIN_S)
        try:
            channel.sendto(message.encode(), name)
        except OSError:
            # A service manager that went away is no reason to stop looking after the machine.
            return False
    return True


def watchdog_interval() -> timedelta | None:
    """How often to send `WATCHDOG=1`: half of what systemd waits; None when it does not."""
    asked = os.environ.get("WATCHDOG_USEC", "")
    if not asked.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return timedelta(microseconds=int(asked) // 2)
