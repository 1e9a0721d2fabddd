"""First backup, unchanged second backup and restore: Stead beside restic, borg and tar.

    python -m bench.backup [--rounds 3] [--scale 1.0] [--work DIR]

Every round gives each program a fresh repository and runs them one after the other on
the same trees, so that a slow minute of the machine hits all. Ours is the whole
command, `stead backup run`, over mutual TLS to a controller on this machine that
fsyncs before it acknowledges; the others write to a local repository and do not wait
for the disk. All read from a warm cache. Peak memory is that of the agent with its
workers, see `bench.memory_use`. Medians over the rounds; a ratio is a peer's
median by ours. Prints Markdown.
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
    stored: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, tree: str, phase: str, program: str, took: float, peak_kib: int) -> None:
        """Keep one run."""
        key = (tree, phase, program)
        self.seconds.setdefault(key, []).append(took)
        self.peak_kib[key] = max(self.peak_kib.get(key, 0), peak_kib)
        print(f"  {tree}: {phase}: {program}: {took:.2f} s", file=sys.stderr, flush=True)


def timed(argv: list[str], environment: dict[str, str], cwd: Path) -> tuple[float, int]:
    """Run a program that must succeed; its seconds and its peak memory in KiB."""
    with (cwd / "bench.log").open("ab") as log:
        started = time.monotonic()
        process = subprocess.Popen(argv, env=environment, cwd=cwd, stdout=log, stderr=log)
        with peak_of(psutil.Process(process.pid)) as peak:
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
        for phase in PHASES[:2]:
            with peak_of(agent) as peak:
                started = time.monotonic()
                installation.must(*backup)
                took = time.monotonic() - started
            figures.note(tree, phase, OURS, took, peak())
        target = _target(work)
        restore = ("stead", "backup", "restore", machine, "latest", str(source), "--to")
        with peak_of(agent) as peak:
            started = time.monotonic()
            installation.must(*restore, str(target))
            took = time.monotonic() - started
        figures.note(tree, PHASES[2], OURS, took, peak())
        _check(source, target / source.name)
    figures.stored[tree, OURS] = measure(home / "controller" / "objects")[1]
    shutil.rmtree(home)


def restic(figures: Figures, tree: str, source: Path, work: Path) -> None:
    """One round of restic with a local repository of version 2 (compressed)."""
    repository, cache = work / "restic", work / "restic-cache"
    environment = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(cache)}
    base = ["restic", "-r", str(repository)]
    timed([*base, "init", "--repository-version", "2"], environment, work)
    for phase in PHASES[:2]:
        figures.note(
            tree, phase, "restic", *timed([*base, "backup", str(source)], environment, work)
        )
    target = _target(work)
    restore = [*base, "restore", "latest", "--target", str(target)]
    figures.note(tree, PHASES[2], "restic", *timed(restore, environment, work))
    _check(source, target / source.relative_to("/"))
    figures.stored[tree, "restic"] = measure(repository)[1]
    shutil.rmtree(repository)
    shutil.rmtree(cache)


def borg(figures: Figures, tree: str, source: Path, work: Path) -> None:
    """One round of borg with an encrypted local repository and zstd level 1."""
    repository, base = work / "borg", work / "borg-home"
    environment = {**os.environ, "BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": str(base)}
    timed(["borg", "init", "-e", "repokey-blake2", str(repository)], environment, work)
    for number, phase in enumerate(PHASES[:2]):
        create = ["borg", "create", "-C", "zstd,1", f"{repository}::{number}", str(source)]
        figures.note(tree, phase, "borg", *timed(create, environment, work))
    target = _target(work)
    target.mkdir()
    extract = ["borg", "extract", f"{repository}::1"]
    figures.note(tree, PHASES[2], "borg", *timed(extract, environment, target))
    (target / "bench.log").unlink()
    _check(source, target / source.relative_to("/"))
    figures.stored[tree, "borg"] = measure(repository)[1]
    shutil.rmtree(repository)
    shutil.rmtree(base)


def tar(figures: Figures, tree: str, source: Path, work: Path) -> None:
    """The floor: no encryption, no deduplication, no incremental backup."""
    archive = work / "tar.zst"
    pack = ["sh", "-c", f"tar -C {source} -cf - . | zstd -q -1 -T2 -o {archive}"]
    figures.note(tree, PHASES[0], PEERS[2], *timed(pack, dict(os.environ), work))
    target = _target(work)
    target.mkdir()
    unpack = ["sh", "-c", f"zstd -q -d -c {archive} | tar -C {target} -xf -"]
    figures.note(tree, PHASES[2], PEERS[2], *timed(unpack, dict(os.environ), work))
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


def render(figures: Figures, trees: dict[str, tuple[int, int]], rounds: int) -> str:
    """The tables."""
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"medians of {rounds} in one run; seconds, and in brackets how many times ours.",
        "",
        "| work | " + " | ".join((OURS, *PEERS)) + " |",
        "|---|" + "---|" * (len(PEERS) + 1),
    ]
    for tree, (files, size) in trees.items():
        for phase in PHASES:
            mine = median(figures.seconds[tree, phase, OURS])
            cells = [f"{mine:.2f}"]
            for peer in PEERS:
                runs = figures.seconds.get((tree, phase, peer))
                cells.append(f"{median(runs):.2f} ({median(runs) / mine:.1f}×)" if runs else "–")
            name = f"{phase}, {files:,} files, {size / 1e9:.2f} GB"
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| | " + " | ".join((OURS, *PEERS)) + " |", "|---|" + "---|" * (len(PEERS) + 1)]
    for tree in trees:
        stored = [f"{figures.stored[tree, p] / 1e6:,.0f}" for p in (OURS, *PEERS)]
        lines.append(f"| MB stored, {tree} | " + " | ".join(stored) + " |")
        for phase in PHASES:
            peaks = [figures.peak_kib.get((tree, phase, p)) for p in (OURS, *PEERS)]
            shown = [f"{peak / KIB:,.0f}" if peak else "–" for peak in peaks]
            lines.append(f"| peak MiB, {tree}, {phase} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description="Backups side by side.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the trees' sizes")
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
        small_tree(sources["small files"], files=files, total=small)
        large_files(sources["large files"], total=large)
        for tree, source in sources.items():
            trees[tree] = measure(source)
            for _ in range(options.rounds):
                for program in (ours, restic, borg, tar):
                    program(figures, tree, source, work)
    print(render(figures, trees, options.rounds))


if __name__ == "__main__":
    main()
