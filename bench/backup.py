"""First backup, unchanged second backup and restore: Stead beside restic, borg and tar.

    python -m bench.backup [--rounds 3] [--scale 1.0] [--work DIR]
        [--tree "small files"] [--program restic] [--no-memory]

Every round gives each program a fresh repository and runs them one after the other on
the same trees, so that a slow minute of the machine hits all. Ours is the whole
command, `stead backup run`, over mutual TLS to a controller on this machine that
fsyncs before it acknowledges; the others write to a local repository and do not wait
for the disk. All read from a warm cache, and begin when nothing that another has
written is on its way to the disk any more. Medians over the rounds; a ratio is a peer's
median by ours. Peak memory is that of the agent with its workers, see
`bench.memory_use`; it is looked at in a round of its own before the others, since
looking takes time from those that are looked at. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from bench.compiled import compile_packages
from bench.memory_use import peak_of, service_of
from bench.trees import LARGE_BYTES, SMALL_BYTES, SMALL_FILES, large_files, small_tree
from demo.comparison import compare, measure
from demo.installation import LINKED, Installation

PHASES = ("first backup", "second backup, nothing changed", "restore")
PEERS = ("restic", "borg", "tar + zstd -1 -T2")
OURS = "Stead"
KIB = 1024


@dataclass
class Figures:
    """Seconds and peak memory (KiB), by tree, phase and program."""

    seconds: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    peak_kib: dict[tuple[str, str, str], int] = field(default_factory=dict)
    looks: bool = False
    stored: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, tree: str, phase: str, program: str, took: float, peak_kib: int) -> None:
        """Keep one run: its memory where it was looked at, else its time."""
        key = (tree, phase, program)
        if self.looks:
            self.peak_kib[key] = peak_kib
        else:
            self.seconds.setdefault(key, []).append(took)
        kept = f"{peak_kib / KIB:.0f} MiB" if self.looks else f"{took:.2f} s"
        print(f"  {tree}: {phase}: {program}: {kept}", file=sys.stderr, flush=True)

    @contextmanager
    def seen(self, process: psutil.Process) -> Iterator[Callable[[], int]]:
        """The peak of a process in KiB, or 0 in a round that is for time."""
        with (peak_of if self.looks else unseen)(process) as peak:
            yield peak

    def run(
        self, tree: str, phase: str, program: str, argv: list[str], cwd: Path,
        environment: Mapping[str, str] = os.environ,
    ) -> None:  # fmt: skip
        """Run a peer that must succeed, and keep what it took."""
        os.sync()
        took, peak_kib = timed(argv, environment, cwd, self.seen)
        if phase:
            self.note(tree, phase, program, took, peak_kib)


@contextmanager
def unseen(_: psutil.Process) -> Iterator[Callable[[], int]]:
    """Where the time counts nobody looks at the memory."""
    yield lambda: 0


def timed(
    argv: list[str],
    environment: Mapping[str, str],
    cwd: Path,
    seen: Callable[[psutil.Process], AbstractContextManager[Callable[[], int]]] | None = None,
) -> tuple[float, int]:
    """Run a program that must succeed; its seconds and its peak memory in KiB, if `seen`."""
    with (cwd / "bench.log").open("ab") as log:
        started = time.monotonic()
        process = subprocess.Popen(argv, env=environment, cwd=cwd, stdout=log, stderr=log)
        with (seen or unseen)(psutil.Process(process.pid)) as peak:
            process.wait()
        took = time.monotonic() - started
    if process.returncode != 0:
        raise SystemExit(f"{argv} ended with {process.returncode}; see {cwd / 'bench.log'}")
    return took, peak()


def ours(figures: Figures, tree: str, source: Path, work: Path) -> None:
    """One round of Stead: a new controller, a new machine, three commands."""
    home = work / "stead"
    home.mkdir()
    installation = Installation(home)
    with installation.enrolled():
        machine = only_machine(installation)
        agent = service_of(home, "stead-agent", "run")
        backup = ("stead", "backup", "run", machine, "--path", str(source))
        target = _target(work)
        restore = ("stead", "backup", "restore", machine, "latest", str(source), "--to")
        for phase, command in zip(PHASES, (backup, backup, (*restore, str(target))), strict=True):
            os.sync()
            with figures.seen(agent) as peak:
                started = time.monotonic()
                installation.must(*command)
                took = time.monotonic() - started
            figures.note(tree, phase, OURS, took, peak())
        _check(source, target / source.name)
    figures.stored[tree, OURS] = measure(home / "controller" / "objects")[1]
    shutil.rmtree(home)


def restic(figures: Figures, tree: str, source: Path, work: Path) -> None:
    """One round of restic with a local repository of version 2 (compressed)."""
    repository, cache = work / "restic", work / "restic-cache"
    environment = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(cache)}
    base = ["restic", "-r", str(repository)]
    target = _target(work)
    init = [*base, "init", "--repository-version", "2"]
    backup = [*base, "backup", str(source)]
    restore = [*base, "restore", "latest", "--target", str(target)]
    for phase, argv in zip(("", *PHASES), (init, backup, backup, restore), strict=True):
        figures.run(tree, phase, "restic", argv, work, environment)
    _check(source, target / source.relative_to("/"))
    figures.stored[tree, "restic"] = measure(repository)[1]
    shutil.rmtree(repository)
    shutil.rmtree(cache)


def borg(figures: Figures, tree: str, source: Path, work: Path) -> None:
    """One round of borg with an encrypted local repository and zstd level 1."""
    repository, base = work / "borg", work / "borg-home"
    environment = {**os.environ, "BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": str(base)}
    init = ["borg", "init", "-e", "repokey-blake2", str(repository)]
    figures.run(tree, "", "borg", init, work, environment)
    for number, phase in enumerate(PHASES[:2]):
        create = ["borg", "create", "-C", "zstd,1", f"{repository}::{number}", str(source)]
        figures.run(tree, phase, "borg", create, work, environment)
    target = _target(work)
    target.mkdir()
    extract = ["borg", "extract", f"{repository}::1"]
    figures.run(tree, PHASES[2], "borg", extract, target, environment)
    (target / "bench.log").unlink()
    _check(source, target / source.relative_to("/"))
    figures.stored[tree, "borg"] = measure(repository)[1]
    shutil.rmtree(repository)
    shutil.rmtree(base)


def tar(figures: Figures, tree: str, source: Path, work: Path) -> None:
    """The floor: no encryption, no deduplication, no incremental backup."""
    archive = work / "tar.zst"
    pack = ["sh", "-c", f"tar -C {source} -cf - . | zstd -q -1 -T2 -o {archive}"]
    figures.run(tree, PHASES[0], PEERS[2], pack, work)
    target = _target(work)
    target.mkdir()
    unpack = ["sh", "-c", f"zstd -q -d -c {archive} | tar -C {target} -xf -"]
    figures.run(tree, PHASES[2], PEERS[2], unpack, work)
    figures.stored[tree, PEERS[2]] = archive.stat().st_size
    archive.unlink()  # tar keeps whole seconds and no attributes: not compared


def only_machine(installation: Installation) -> str:
    """The name of the one machine there is."""
    import json

    return str(json.loads(installation.must(*LINKED))[0]["name"])


def _check(source: Path, target: Path) -> None:
    """A restore that is not the same is not a restore, however fast."""
    found = compare(source, target)
    if found.differences:
        count = len(found.differences)
        raise SystemExit(f"restored with {count} differences: {found.differences[:3]}")


def _target(work: Path) -> Path:
    """A fresh name to restore to. Nothing restored is deleted before the end: a file
    system makes files slowly where it has just deleted many, and that would hit whoever
    comes next.
    """
    return work / f"back-{len(list(work.glob('back-*')))}"


PROGRAMS = dict(zip((OURS, *PEERS), (ours, restic, borg, tar), strict=True))


def render(
    figures: Figures, trees: dict[str, tuple[int, int]], rounds: int, programs: list[str]
) -> str:
    """The tables. `programs` begin with ours."""
    peers = programs[1:]
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"medians of {rounds} in one run; seconds, and in brackets how many times ours.",
        "",
        "| work | " + " | ".join(programs) + " |",
        "|---|" + "---|" * (len(programs)),
    ]
    for tree, (files, size) in trees.items():
        for phase in PHASES:
            mine = median(figures.seconds[tree, phase, OURS])
            cells = [f"{mine:.2f}"]
            for peer in peers:
                runs = figures.seconds.get((tree, phase, peer))
                cells.append(f"{median(runs):.2f} ({median(runs) / mine:.1f}×)" if runs else "–")
            name = f"{phase}, {files:,} files, {size / 1e9:.2f} GB"
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| | " + " | ".join(programs) + " |", "|---|" + "---|" * (len(programs))]
    for tree in trees:
        stored = [f"{figures.stored[tree, p] / 1e6:,.0f}" for p in programs]
        lines.append(f"| MB stored, {tree} | " + " | ".join(stored) + " |")
        for phase in PHASES:
            peaks = [figures.peak_kib.get((tree, phase, p)) for p in programs]
            shown = [f"{peak / KIB:,.0f}" if peak else "–" for peak in peaks]
            lines.append(f"| peak MiB, {tree}, {phase} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description="Backups side by side.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the trees' sizes")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tree", action="append", choices=("small files", "large files"))
    parser.add_argument("--program", action="append", choices=PEERS, help="beside ours")
    parser.add_argument("--work", type=Path, default=None, help="a directory with 50 GB free")
    options = parser.parse_args()
    compile_packages()
    figures, trees = Figures(), {}
    with tempfile.TemporaryDirectory(prefix="stead-bench-", dir=options.work) as name:
        work = Path(name)
        sources = {"small files": work / "small", "large files": work / "large"}
        files, small, large = (
            int(full * options.scale) for full in (SMALL_FILES, SMALL_BYTES, LARGE_BYTES)
        )
        programs = [OURS, *(options.program or PEERS)]
        for tree in options.tree or sources:
            source = sources[tree]
            if tree == "small files":
                small_tree(source, files=files, total=small)
            else:
                large_files(source, total=large)
            trees[tree] = measure(source)
            for looks in (*[True] * options.memory, *[False] * options.rounds):
                figures.looks = looks
                for program in programs:
                    PROGRAMS[program](figures, tree, source, work)
    print(render(figures, trees, options.rounds, programs))


if __name__ == "__main__":
    main()
