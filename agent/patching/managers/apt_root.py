"""Where apt and dpkg find their files, on this machine or in a private root.

A private root is a folder with a package database of its own: a mounted system, or a
folder that a test made. apt reads `/etc/apt/apt.conf.d` before its arguments, and what
it finds there may run programs on this machine; so a private root is named in a
configuration file that `APT_CONFIG` points to, which apt reads before anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QUIET = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none",
    # needrestart would restart services in the middle of a transaction.
    "NEEDRESTART_SUSPEND": "1",
    "UCF_FORCE_CONFFOLD": "1",
    "LC_ALL": "C",
    "LANG": "C",
}


@dataclass(frozen=True, slots=True)
class Root:
    """The folder that apt works in; `config` is the file made from `render_config`."""

    path: Path = Path("/")
    config: Path | None = None

    @property
    def private(self) -> bool:
        """It is not the running system."""
        return self.path != Path("/")

    @property
    def database(self) -> Path:
        """dpkg's administrative folder."""
        return self.path / "var/lib/dpkg"

    @property
    def env(self) -> dict[str, str]:
        """What every program of apt's gets in its environment."""
        return QUIET | ({"APT_CONFIG": str(self.config)} if self.config else {})

    @property
    def refresh_stamps(self) -> tuple[Path, ...]:
        """Files and folders that a refresh touches: ours, apt's timer's, and the lists."""
        timer = self.path / "var/lib/apt/periodic/update-stamp"
        return self.success_stamp, timer, self.lists

    @property
    def lists(self) -> Path:
        """The folder of what the repositories said."""
        return self.path / "var/lib/apt/lists"

    @property
    def success_stamp(self) -> Path:
        """The file that tools around apt touch after a refresh without an error."""
        return self.path / "var/lib/apt/periodic/update-success-stamp"


def render_config(root: Path, architecture: str, dpkg_options: Sequence[str] = ()) -> str:
    """An apt.conf(5) that keeps apt and dpkg inside `root`.

    `architecture` is dpkg's word (`amd64`); `dpkg_options` are added to dpkg's.
    """
    options = (f"--root={root}", f"--log={root}/var/log/dpkg.log", *dpkg_options)
    quoted = " ".join(f'"{option}";' for option in options)
    return (
        f'Dir "{root}";\n'
        f'Dir::State::status "{root}/var/lib/dpkg/status";\n'
        f'APT::Architecture "{architecture}";\n'
        f'APT::Architectures {{ "{architecture}"; }};\n'
        'APT::Sandbox::User "root";\n'
        f"DPkg::Options {{ {quoted} }};\n"
    )
