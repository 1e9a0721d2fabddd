"""Be the agent under a service manager that keeps no log: Windows' and launchd."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from agent.app import run_agent
from agent.config import AgentHome
from agent.host import log
from agent.host.files import make_private_directory
from agent.host.log_file import LogFile
from protocol.errors import SteadError


def run_service(home: AgentHome) -> None:
    """Be the agent until the service manager says to stop, with a log in the agent's home."""
    make_private_directory(home.log.parent)
    sys.stderr = LogFile(home.log)
    if sys.platform == "win32":
        from agent.service.windows import serve

        serve(lambda stops: _work(home, stops))
    else:
        run_agent(home)


def _work(home: AgentHome, stops: Callable[[Callable[[], None]], None]) -> None:
    """The agent, which `stops` is told how to stop; an error is in the log, and is raised."""

    def listen(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        def soon() -> None:
            loop.call_soon_threadsafe(stop)

        stops(soon)

    try:
        run_agent(home, listen=listen)
    except SteadError as error:
        log.warning("agent_failed", code=error.code, reason=str(error))
        raise
    except Exception as error:
        log.warning("agent_failed", reason=f"{type(error).__name__}: {error}")
        raise
