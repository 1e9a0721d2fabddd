"""Find what runs this machine's services."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from agent.host.leaving import run_leaving
from agent.host.process import Run
from agent.services.initd import SCRIPTS, InitD
from agent.services.manager import ServiceManager
from agent.services.systemd import Systemd
from protocol.errors import Code, SteadError

BOOTED_BY_SYSTEMD = Path("/run/systemd/system")


def detect_services(
    start: Run = run_leaving, *, booted: Path = BOOTED_BY_SYSTEMD, scripts: Path = SCRIPTS
) -> ServiceManager:
    """The manager of this machine's services; UNSUPPORTED where we know none."""
    if sys.platform == "win32":
        from agent.services.by_psutil import described, memory_of
        from agent.services.scm import NativeScm
        from agent.services.windows import WindowsServices

        return WindowsServices(NativeScm(), described, memory_of, _wait)
    if sys.platform == "darwin":
        from agent.services.by_psutil import memory_of
        from agent.services.launchd import Launchd

        return Launchd(start, memory_of, _wait)
    if booted.is_dir():
        return Systemd(start)
    if scripts.is_dir():
        return InitD(start, scripts)
    raise SteadError(f"systemd does not run here and there is no {scripts}", code=Code.UNSUPPORTED)


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)
