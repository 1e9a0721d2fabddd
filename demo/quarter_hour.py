"""The first quarter of an hour with Stead, on this machine, in a temporary home.

    python -m demo.quarter_hour [--keep]

Starts a controller and an agent, does with them what the README shows, compares a
restored directory with the original byte for byte, and leaves nothing running. Every
step is the command that a person would type.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo.comparison import Comparison, compare, measure
from demo.installation import ADDRESS, LINKED, Installation, InstallationError, free_ports

MIN_FILES = 10_000
MIN_BYTES = 200_000_000
BOLD, DIM, PLAIN = "\033[1m", "\033[2m", "\033[0m"


class Guide:
    """Types commands and tells how each went."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.steps = 0

    def step(self, *argv: str, stdin: str = "", show: int = 14, secret: bool = False) -> str:
        """Run a command that must succeed; print it, its time and what it said."""
        self.steps += 1
        _say(f"\n{BOLD}$ {shlex.join(argv)}{PLAIN}")
        started = time.monotonic()
        ended = self.installation.run(*argv, stdin=stdin, timeout=170)
        took = time.monotonic() - started
        said = "(a token, which is a secret)" if secret else ended.stdout + ended.stderr
        lines = said.rstrip().splitlines()
        for line in lines[:show]:
            _say(f"  {line}")
        if len(lines) > show:
            _say(f"  … and {len(lines) - show} lines more")
        _say(f"  {DIM}{took:.2f} s{PLAIN}")
        if ended.returncode != 0:
            raise InstallationError(
                f"`{shlex.join(argv)}` ended with {ended.returncode}: {ended.stderr.strip()}"
            )
        return ended.stdout


def real_directory() -> Path:
    """A real directory of at least 10,000 files and 200 MB that stands still."""
    for candidate in (Path(sys.prefix), Path(sys.base_prefix), Path("/usr/lib"), Path("/usr")):
        files, size = measure(candidate)
        if files >= MIN_FILES and size >= MIN_BYTES:
            return candidate
    raise InstallationError(f"no directory has {MIN_FILES:,} files and {MIN_BYTES:,} bytes")


def set_up(guide: Guide) -> Comparison:
    """From nothing to a managed machine, and what one does with it."""
    installation = guide.installation
    link, enroll = free_ports(2)
    guide.step(
        "stead", "controller", "init", "--name", ADDRESS,
        "--listen", f"{ADDRESS}:{link}", "--enroll-listen", f"{ADDRESS}:{enroll}",
    )  # fmt: skip
    _say(f"\n{BOLD}$ stead controller serve &{PLAIN}")
    with installation.service("stead", "controller", "serve") as controller:
        installation.until(controller, "stead", "controller", "status")
        guide.step("stead", "controller", "status")
        guide.step("stead", "tenant", "add", "acme")
        token = guide.step("stead", "token", "new", "--tenant", "acme", secret=True)
        guide.step("stead-agent", "enroll", "--token", "-", stdin=token)
        _say(f"\n{BOLD}$ stead-agent run &{PLAIN}")
        with installation.service("stead-agent", "run") as agent:
            installation.until(agent, *LINKED, said='"linked": true')
            return manage(guide)


def manage(guide: Guide) -> Comparison:
    """What an operator does with a machine: look, scan, back up, restore, run, verify."""
    guide.step("stead", "machine", "ls")
    machine = json.loads(guide.installation.must(*LINKED))[0]["name"]
    guide.step("stead", "snapshot", "take", "all")
    guide.step("stead", "snapshot", "show", machine, show=40)
    guide.step("stead", "patch", "scan", "all", "--no-refresh")
    guide.step("stead", "patch", "ls", "all")

    source = real_directory()
    files, size = measure(source)
    _say(f"\nto be backed up: {source}: {files:,} files, {size / 1e6:,.0f} MB")
    guide.step("stead", "backup", "set", "all", "--path", str(source), "--schedule", "daily")
    guide.step("stead", "backup", "run", "all")
    _say("\nagain: nothing has changed")
    guide.step("stead", "backup", "run", "all")
    guide.step("stead", "backup", "ls", machine)
    guide.step("stead", "backup", "browse", machine, "latest", str(source))
    target = guide.installation.home / "back"
    guide.step("stead", "backup", "restore", machine, "latest", str(source), "--to", str(target))
    _say("\ncomparing bytes, modes, owners, nanosecond times, links and attributes …")
    comparison = compare(source, target / source.name)
    _say(f"  {comparison.summary()}")

    guide.step("stead", "run", "all", "--", "uname", "-a")
    every = ("--every", "daily", "--until", "90d", "--name", "tidy")
    guide.step("stead", "run", "all", *every, "--", "uptime")
    guide.step("stead", "order", "ls")
    guide.step("stead", "job", "ls")
    guide.step("stead", "audit", "verify")
    return comparison


def main() -> int:
    """Run the demo; 0 when every step did what it should."""
    parser = argparse.ArgumentParser(description="The first quarter of an hour with Stead.")
    parser.add_argument("--keep", action="store_true", help="keep the temporary home")
    options = parser.parse_args()
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="stead-demo-"))
    guide = Guide(Installation(home))
    _say(f"everything happens in {home}")
    try:
        comparison = set_up(guide)
    except (InstallationError, subprocess.TimeoutExpired) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            _remove(home)
    if comparison.differences:
        print("\nthe restored directory differs:", *comparison.differences[:20], sep="\n  ")
        return 1
    _say(f"\n{guide.steps} steps in {time.monotonic() - began:.0f} s; nothing is left running")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _remove(home: Path) -> None:
    for folder, _, _ in os.walk(home):
        Path(folder).chmod(0o700)  # what was restored may be read-only
    shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
