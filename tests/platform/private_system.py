"""This machine's system once more, in a mount namespace: what is changed there stays there.

An overlay over `/` whose upper layer is a file system in memory, entered by chroot. The
network, the kernel and the processes are the machine's own. The package database and
apt's settings start out empty, so that nothing depends on how this machine is patched.
The namespace ends with the last process in it, and all that was written with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.patching.private_apt import Repository, call, require_programs

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HOME = "/var/lib/stead"
STOP_S = 15.0

# Mounts of the machine are not part of an overlay over `/`; those that are needed are
# bound, and whatever else is mounted somewhere is an empty folder in there.
MAKE = """
base=${1:?}; shift
mount -t tmpfs -o mode=755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/merged"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/merged"
cd "$base/merged"
mount --rbind /proc proc
mount --rbind /dev dev
for path in "$@"; do mkdir -p "./$path"; mount --rbind "$path" "./$path"; done
rm -rf etc/apt etc/dpkg var/lib/dpkg var/lib/apt var/cache/apt var/log/apt var/log/dpkg.log
rm -rf run/reboot-required* boot/vmlinuz-* var/lib/stead
mkdir -p etc/apt/apt.conf.d etc/apt/preferences.d etc/apt/sources.list.d etc/dpkg/dpkg.cfg.d
mkdir -p var/lib/dpkg/info var/lib/dpkg/updates var/lib/dpkg/triggers var/lib/dpkg/alternatives
mkdir -p var/lib/apt/lists/partial var/cache/apt/archives/partial var/log/apt run tmp var/lib/stead
chmod 1777 tmp
touch var/lib/dpkg/status
echo "log /var/log/dpkg.log" > etc/dpkg/dpkg.cfg
exec chroot . sh -c 'echo ready; exec cat'
"""


@dataclass(frozen=True, slots=True)
class PrivateSystem:
    """A system that `holder` keeps alive; programs are started in it by `argv`."""

    holder: int

    @property
    def path(self) -> Path:
        """Its root, as it is seen from outside."""
        return Path(f"/proc/{self.holder}/root")

    def argv(self, *words: str | Path) -> list[str]:
        """What to start so that `words` runs in there, in the very process that is started."""
        enter = ("nsenter", f"--target={self.holder}", "--mount", "--root", "--wd", "--")
        path = f"PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
        settings = (path, f"STEAD_HOME={HOME}", "PYTHONDONTWRITEBYTECODE=1")
        return [*enter, "env", "-i", *settings, *map(str, words)]

    def call(self, *words: str | Path) -> bytes:
        """Run a program in there that must succeed."""
        return call(*self.argv(*words))

    def offer(self, *sources: tuple[Repository, str]) -> None:
        """Take packages from these repositories, each at its address."""
        lines = []
        for repository, address in sources:
            keyring = f"/etc/apt/{repository.folder.name}.gpg"
            (self.path / keyring[1:]).write_bytes(repository.keyring.read_bytes())
            lines.append(f"deb [signed-by={keyring}] {address} ./\n")
        (self.path / "etc/apt/sources.list").write_text("".join(lines))
        (self.path / "etc/apt/apt.conf").write_text('Acquire::Retries "0";\n')

    def refresh(self) -> None:
        """Renew the lists, as the machine's own timer would."""
        self.call("apt-get", "-qq", "update")

    def install(self, *names: str) -> None:
        """Install packages, as the machine's administrator would."""
        self.refresh()
        self.call("apt-get", "-qq", "-y", "install", *names)

    def version(self, name: str) -> str:
        """The version that the installed files say, empty for none."""
        file = self.path / f"usr/share/{name}/version"
        return file.read_text() if file.exists() else ""

    def state(self, name: str) -> str:
        """dpkg's words for how a package is installed."""
        return self.call("dpkg-query", "-W", "-f", "${db:Status-Status}", name).decode()

    def log(self) -> str:
        """What dpkg did, step by step."""
        return (self.path / "var/log/dpkg.log").read_text()

    def clear(self) -> None:
        """Take away every package, however it was left, and what they asked for."""
        names = self.call("dpkg-query", "-W", "-f", "${Package}\n").decode().split()
        if names:
            self.call("dpkg", "--purge", "--force-all", *names)
        for flag in (self.path / "run").glob("reboot-required*"):
            flag.unlink()

    def inhabitants(self) -> set[int]:
        """Processes in the namespace, but for the holder."""
        own = Path(f"/proc/{self.holder}/ns/mnt").readlink()
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.holder:
                try:
                    if (entry / "ns/mnt").readlink() == own:
                        found.add(int(entry.name))
                except OSError:  # it ended meanwhile, or is a zombie
                    continue
        return found


@contextmanager
def private_system(base: Path) -> Iterator[PrivateSystem]:
    """A system below the empty folder `base`, which shows nothing of it to others."""
    if os.geteuid() != 0:
        pytest.skip("not run: needs root")
    require_programs("unshare", "nsenter", "chroot")
    here = Path("/").stat().st_dev
    folders = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    bound = [str(folder) for folder in sorted(folders) if folder.stat().st_dev != here]
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-euc", MAKE, "sh", base, *bound],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"ready\n":
            said = holder.stderr.read().decode().strip()
            pytest.skip(f"not run: no private system can be mounted: {said}")
        system = PrivateSystem(holder.pid)
        assert not system.path.samefile("/"), "this would be the machine itself"
        try:
            yield system
        finally:
            left = system.inhabitants()
            for process in left:
                os.kill(process, signal.SIGKILL)
            holder.stdin.close()
            holder.wait(STOP_S)
    assert not left, f"processes were left in the private system: {left}"
    assert not any(base.iterdir()), "the private system was seen outside of it"
