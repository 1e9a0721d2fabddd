"""Find the package manager that owns this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.host.environment import find_program
from agent.host.process import Run, run
from agent.patching.errors import ManagerMissingError
from agent.patching.manager import PackageManager

APT_PROGRAMS = ("dpkg", "apt-get")
# dpkg can be installed on a machine that another manager owns; its database is empty then.
APT_DATABASE = Path("/var/lib/dpkg/status")


def detect_manager(
    start: Run = run,
    *,
    find: Callable[[str], str | None] = find_program,
    apt_database: Path = APT_DATABASE,
    on_output: Callable[[bytes], None] | None = None,
) -> PackageManager:
    """The manager of this machine's packages; raises `ManagerMissingError` (UNSUPPORTED).

    `on_output` gets what a transaction prints, as it prints it.
    """
    missing = [program for program in APT_PROGRAMS if find(program) is None]
    if not (apt_database.is_file() and apt_database.stat().st_size):
        missing.append(f"packages in {apt_database}")
    if missing:
        raise ManagerMissingError([f"apt: no {', no '.join(missing)}"])
    from agent.patching.managers.apt import Apt

    return Apt(run=start, on_output=on_output)
