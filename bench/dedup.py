"""How much less each program stores than it was given: Stead, restic and borg on real trees.

    python -m bench.dedup [--work DIR] [--package NAME==OLD --package NAME==NEW]

Three sets, each backed up state by state into one vault or repository:

- two releases of a large tree of sources, as published (pip fetches them);
- images of machines: ext4 file systems, made of programs and libraries of this system,
  before and after packages were added, and of a second machine that shares most of them;
- a home: the checkout of this project with its history and its virtual environment, and
  a day later, with a tenth of the files of the checkout edited.

Prints Markdown: bytes given, bytes stored, and how many times less that is.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.backup import only_machine, timed
from demo.comparison import measure
from demo.installation import Installation

PROGRAMS = ("Stead", "restic", "borg")
RELEASES = ("ansible==9.12.0", "ansible==9.13.0")
BASE = ("/usr/bin", "/usr/lib/python3", "/usr/share/perl", "/etc")
ADDED = ("/usr/lib/git-core", "/usr/share/vim", "/usr/lib/gcc")
OTHER = ("/usr/bin", "/usr/sbin", "/usr/share/perl", "/etc", "/usr/share/zoneinfo")
PROJECT = Path(__file__).parent.parent


def releases(work: Path, wanted: Sequence[str]) -> list[Path]:
    """The unpacked wheels of two releases."""
    found = []
    for number, release in enumerate(wanted):
        fetched, state = work / f"wheel{number}", work / f"release{number}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--only-binary=:all:", "-d", str(fetched), release], check=True)
        (wheel,) = fetched.iterdir()
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(state)
        shutil.rmtree(fetched)
        found.append(state)
    return found


def images(work: Path) -> list[Path]:
    """Directories with one ext4 image each."""
    found = []
    for number, folders in enumerate((BASE, (*BASE, *ADDED), OTHER)):
        tree, state = work / "tree", work / f"image{number}"
        tree.mkdir()
        state.mkdir()
        for folder in folders:
            if Path(folder).is_dir():
                into = tree / folder.lstrip("/")
                into.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", folder, str(into)], check=True)
        size = int(measure(tree)[1] * 1.3 / 1e6) + 64
        # A machine's image has its own identity; the content is what they share.
        make = ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(state / "disk.img"), f"{size}M"]
        subprocess.run(make, check=True)
        shutil.rmtree(tree)
        found.append(state)
    return found


def homes(work: Path) -> list[Path]:
    """The checkout with its environment, before and after a day of work."""
    before, after = work / "home0", work / "home1"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(PROJECT), before], check=True)
    environment = PROJECT / ".venv"
    if environment.is_dir():
        subprocess.run(["cp", "-a", str(environment), str(before / ".venv")], check=True)
    subprocess.run(["cp", "-a", str(before), str(after)], check=True)
    source = random.Random(4)
    for path in sorted(after.rglob("*.py")):
        if ".venv" not in path.parts and source.random() < 0.1:
            lines = path.read_text().splitlines(keepends=True)
            lines.insert(source.randrange(len(lines) + 1), f"# {source.random()}\n")
            path.write_text("".join(lines))
    return [before, after]


def stead(states: Sequence[Path], work: Path) -> int:
    """Bytes of objects after backing up every state."""
    home = work / "stead"
    home.mkdir()
    installation = Installation(home)
    with installation.enrolled():
        machine = only_machine(installation)
        for state in states:
            installation.must("stead", "backup", "run", machine, "--path", str(state))
    stored = measure(home / "controller" / "objects")[1]
    shutil.rmtree(home)
    return stored


def restic(states: Sequence[Path], work: Path) -> int:
    """The same of a repository of version 2."""
    repository, cache = work / "restic", work / "restic-cache"
    environment = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(cache)}
    base = ["restic", "-r", str(repository)]
    timed([*base, "init", "--repository-version", "2"], environment, work)
    for state in states:
        timed([*base, "backup", str(state)], environment, work)
    stored = measure(repository)[1]
    shutil.rmtree(repository)
    shutil.rmtree(cache)
    return stored


def borg(states: Sequence[Path], work: Path) -> int:
    """The same of an encrypted repository, compressed with zstd level 1."""
    repository, base = work / "borg", work / "borg-home"
    environment = {**os.environ, "BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": str(base)}
    timed(["borg", "init", "-e", "repokey-blake2", str(repository)], environment, work)
    for number, state in enumerate(states):
        timed(
            ["borg", "create", "-C", "zstd,1", f"{repository}::{number}", str(state)],
            environment,
            work,
        )
    stored = measure(repository)[1]
    shutil.rmtree(repository)
    shutil.rmtree(base)
    return stored


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description="Deduplication side by side.")
    parser.add_argument("--work", type=Path, default=None, help="a directory with 10 GB free")
    parser.add_argument("--package", action="append", default=[], help="a release to fetch")
    options = parser.parse_args()
    lines = ["| states | given, MB | " + " | ".join(PROGRAMS) + " |", "|---" * 5 + "|"]
    with tempfile.TemporaryDirectory(prefix="stead-dedup-", dir=options.work) as name:
        work = Path(name)
        wanted = options.package or RELEASES
        sets: list[tuple[str, Callable[[], list[Path]]]] = [
            (f"releases: {', '.join(wanted)}", lambda: releases(work, wanted)),
            ("images of three machines", lambda: images(work)),
            ("a home on two days", lambda: homes(work)),
        ]
        for title, make in sets:
            states = make()
            given = sum(measure(state)[1] for state in states)
            cells = []
            for program in (stead, restic, borg):
                stored = program(states, work)
                cells.append(f"{stored / 1e6:,.1f} MB ({given / stored:.2f}×)")
                print(f"  {title}: {program.__name__}: {stored:,}", file=sys.stderr, flush=True)
            lines.append(f"| {title} | {given / 1e6:,.0f} | " + " | ".join(cells) + " |")
            for state in states:
                shutil.rmtree(state)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
