"""Remember the newest restore point of each machine that this profile has opened.

A controller cannot make a restore point, but it can keep the newest ones back and show an
old one as the latest. The id of a point is bound into what the machine sealed and grows
with each of its backups, so an older latest point than the one seen before is noticed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import MachineId, PointId, check_id


class RolledBackError(SteadError):
    """The controller shows an older restore point as the latest than it did before."""

    code = Code.BAD_SIGNATURE


@dataclass(frozen=True, slots=True)
class Seen:
    """A directory with a file for every machine, which holds the id of a restore point."""

    path: Path

    def newest(self, machine: MachineId) -> PointId | None:
        """The newest restore point of a machine that was opened; None when none was."""
        try:
            return PointId(check_id("rp", self._file(machine).read_text().strip()))
        except (FileNotFoundError, InvalidError):
            return None

    def remember(self, machine: MachineId, point: PointId) -> None:
        """Note a point that could be opened, unless a newer one is known."""
        known = self.newest(machine)
        if known is not None and known >= point:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(machine)
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        fresh.write_text(point + "\n")
        fresh.replace(file)

    def problem(self, machine: MachineId, latest: PointId | None) -> str:
        """What is wrong with the latest point that the controller shows; empty when nothing."""
        known = self.newest(machine)
        if known is None or (latest is not None and latest >= known):
            return ""
        shown = f"shows {latest} as the latest" if latest is not None else "shows none"
        return (
            f"the controller {shown}, and this profile has opened the newer {known}: the "
            "controller lost restore points or keeps them back. Name a point by its id to use it "
            f"anyway; remove {self._file(machine)} when you know why"
        )

    def _file(self, machine: MachineId) -> Path:
        return self.path / check_id("mc", machine)
