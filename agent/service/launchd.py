"""The agent as a daemon of launchd, after launchd.plist(5)."""

from __future__ import annotations

import os
import plistlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.host.files import write_atomically
from agent.host.launchd import take_out
from agent.host.process import Run
from agent.service.install import NAME, RESTART_S, STOP_S
from protocol.errors import Code, SteadError

assert sys.platform != "win32"

FOLDER = Path("/Library/LaunchDaemons")
_GONE_WITHIN_S = STOP_S + 30.0


def render_plist(argv: Sequence[str], log: Path) -> bytes:
    """What launchd is told. `log` gets what is said before the agent's own log is open."""
    return plistlib.dumps(
        {
            "Label": NAME,
            "ProgramArguments": [*argv],
            "RunAtLoad": True,
            "KeepAlive": True,
            "ThrottleInterval": RESTART_S,
            "ExitTimeOut": STOP_S,
            # The keys in memory never become a file.
            "HardResourceLimits": {"Core": 0},
            "StandardErrorPath": f"{log}.early",
            "Umask": 0o022,
        },
        sort_keys=True,
    )


@dataclass(frozen=True, slots=True)
class LaunchdOwnService:
    """See `OwnService`. `log` is the agent's own; `wait` takes seconds."""

    run: Run
    log: Path
    wait: Callable[[float], None]
    folder: Path = FOLDER

    @property
    def path(self) -> Path:
        """The file that launchd reads; root's alone to write, or it is refused."""
        return self.folder / f"{NAME}.plist"

    def install(self, argv: Sequence[str]) -> None:
        """See `OwnService`."""
        self._check_root()
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._out()
        write_atomically(self.path, render_plist(argv, self.log), mode=0o644)
        self._tell("enable", f"system/{NAME}")
        self._tell("bootstrap", "system", str(self.path))

    def uninstall(self) -> None:
        """See `OwnService`."""
        self._check_root()
        self._out()
        self.path.unlink(missing_ok=True)

    def _out(self) -> None:
        """Take it out of launchd, which ends it."""
        take_out(self.run, NAME, within_s=_GONE_WITHIN_S, wait=self.wait)

    def _tell(self, *words: str) -> None:
        self.run("launchctl", *words).checked()

    @staticmethod
    def _check_root() -> None:
        if os.geteuid() != 0:
            raise SteadError("only root may change services; use sudo", code=Code.DENIED)
