"""Services by the scripts in `/etc/init.d`, where systemd does not run.

Such a script tells by its exit code alone whether its service runs (the Linux Standard
Base's table: 0 it does, 3 it does not). Whether one starts by itself is `update-rc.d`'s.
`run` must not wait for what a service that was started holds open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.host.process import Finished, Run
from agent.services.manager import ServiceError, Status, unit_name
from protocol.errors import NotFoundError

SCRIPTS = Path("/etc/init.d")
STATUS_S = 60.0
DAY_S = 86_400.0
_STATES = {0: "running", 1: "failed", 2: "failed", 3: "stopped"}


@dataclass(frozen=True, slots=True)
class InitD:
    """See `ServiceManager`."""

    run: Run
    scripts: Path = SCRIPTS

    def _script(self, name: str) -> Path:
        path = self.scripts / name
        if not path.is_file():
            raise NotFoundError(f"this machine has no service {name!r}")
        return path

    def checked_name(self, name: str) -> str:
        """See `ServiceManager`."""
        return unit_name(name)

    def show(self, names: Sequence[str]) -> list[Status]:
        """See `ServiceManager`."""
        return [self._status(name) for name in names]

    def _status(self, name: str) -> Status:
        done = self.run(str(self._script(name)), "status", timeout=STATUS_S)
        return Status(
            name=name,
            description="",
            state=_STATES.get(done.code, "unknown"),
            start="enabled" if self._starts(name) else "disabled",
            detail=_said(done)[-200:],
        )

    def _starts(self, name: str) -> bool:
        levels = self.scripts.parent
        return any(levels.glob(f"rc[2-5].d/S[0-9][0-9]{name}"))

    def act(self, verb: str, name: str) -> None:
        """See `ServiceManager`."""
        script = self._script(name)
        by_itself: tuple[str, ...] = ("update-rc.d", name, verb)
        argv = by_itself if verb in ("enable", "disable") else (str(script), verb)
        done = self.run(*argv, timeout=DAY_S)
        if done.code:
            raise ServiceError(f"{' '.join(argv)} ended with {done.code}: {_said(done)}")


def _said(done: Finished) -> str:
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    return " ".join(text.split())[-1000:]
