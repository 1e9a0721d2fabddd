"""The agent as a service of its system: installed, removed, and what that takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from agent.config import AgentHome
from agent.host.process import Run, run
from protocol.errors import Code, SteadError

NAME = "stead-agent"
"""What the service is called, on every system."""

DISPLAY = "Stead agent"
ABOUT = "Looks after this machine on behalf of the operators that it trusts."
RESTART_S = 15
"""So long after its end the agent is started again: the machine may be far away."""
STOP_S = 60
"""The agent gives its tasks 20 s to end; after so long it is ended."""


class OwnService(Protocol):
    """The agent's own service. All raise `SteadError`."""

    def install(self, argv: Sequence[str]) -> None:
        """Have the system start this program now and at each start, and again when it ends.

        A service that is there is given this program.
        """
        ...

    def uninstall(self) -> None:
        """Stop it and forget it; one that is not there is no error. The state stays."""
        ...


def own_service(home: AgentHome, start: Run = run) -> OwnService:
    """The way of this system; UNSUPPORTED where a package brings the service."""
    if sys.platform == "win32":
        from agent.service.windows import WindowsOwnService

        return WindowsOwnService()
    if sys.platform == "darwin":
        from agent.service.launchd import LaunchdOwnService

        return LaunchdOwnService(start, home.log, time.sleep)
    raise SteadError(
        "on Linux the package brings the service; `systemctl enable --now stead-agent`",
        code=Code.UNSUPPORTED,
    )


def program(
    home: AgentHome,
    *words: str,
    executable: str = sys.executable,
    frozen: bool = getattr(sys, "frozen", False),
) -> tuple[str, ...]:
    """How this very program is called as a service, with its home said.

    >>> program(AgentHome(Path("/h/agent")), "run", executable="/usr/bin/stead-agent", frozen=True)
    ('/usr/bin/stead-agent', '--home', '/h', 'run')
    """
    own = (executable,) if frozen else (executable, "-m", "agent.cli")
    return (*own, "--home", str(Path(home.path).parent), *words)
