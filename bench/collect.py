"""Giving back the room of half a vault: Stead beside `restic forget --prune`.

    python -m bench.collect [--scale 1.0] [--work DIR]

100,000 small files and eight large ones, 2 GB, are backed up; two thirds of the small
and half of the large ones are deleted; the rest is backed up again, and the first restore
point is forgotten. So some packs are dead and others mostly dead. Both programs get the
same trees one after the other. Ours is the collector on the vault of a controller that
was stopped, with all terms over: a first collection marks and condemns, a second one
sweeps. restic does both in one, and writes anew until at most 5 % are unused; ours leaves
packs alone of which more than half is needed.

Then other trees are backed up over mutual TLS, without and with collections running in
the same controller all the time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from sqlalchemy import select

from bench.backup import only_machine, timed
from bench.eager import TERMS
from bench.trees import large_files, small_tree
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.db.schema import tenants
from controller.store.local import LocalStore
from controller.vault.collect.condemn import Collected
from controller.vault.vault import Vault
from demo.comparison import measure
from demo.installation import LINKED, Installation

ROOT = Path(__file__).parents[1]
SMALL_FILES, SMALL_BYTES, LARGE_BYTES = 100_000, 800_000_000, 1_200_000_000
BESIDE_BYTES = 600_000_000
PAIRS = 2
MB = 1_000_000
PHASES = {
    "tidy": "tidy",
    "begin": "plan",
    "forget": "plan",
    "index": "plan",
    "mark": "mark",
    "compare": "compare with the index",
    "spare": "condemn",
    "condemn": "condemn",
    "drop": "drop dead packs",
    "rewrite": "write mostly dead packs anew",
}


@dataclass
class Figures:
    """What was measured: seconds by phase, and everything else by name."""

    phases: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    moved: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)
    last: Collected = field(default_factory=Collected)
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    rounds: int = 0


def make_tree(target: Path, scale: float) -> None:
    """The tree of before."""
    small_tree(target / "small", files=int(SMALL_FILES * scale), total=int(SMALL_BYTES * scale))
    for seed in (3, 4):
        large_files(target / f"large{seed}", total=int(LARGE_BYTES * scale / 2), seed=seed)


def thin_out(target: Path) -> None:
    """Delete two of three small files and half of the large ones."""
    for number, path in enumerate(sorted(one for one in target.rglob("file*") if one.is_file())):
        if number % 3:
            path.unlink()
    # An image and a log; an archive and a dump of a database stay.
    for name in ("disk.img", "syslog"):
        for path in target.glob(f"large*/{name}"):
            path.unlink()


def collect(home: Path, figures: Figures) -> None:
    """Two collections on a stopped controller's vault, timed by phase."""
    controller = home / "controller"
    root = x509.load_pem_x509_certificate((controller / "root.pem").read_bytes())

    async def run() -> None:
        db = Database.open(f"sqlite:///{controller}/stead.db")
        vault = Vault(LocalStore.open(controller / "objects"), db, Trust(root, ()), terms=TERMS)
        tenant = db.read_now(lambda c: c.scalars(select(tenants.c.id)).one())
        for name in ("first collection", "second collection"):
            figures.last = Collected()
            began = at = time.monotonic()
            for step in vault.collector.run(tenant, figures.last):
                phase, now = PHASES[step.phase], time.monotonic()
                figures.phases[phase] += now - at
                figures.moved[phase] += step.moved_bytes
                at = now
            figures.seconds[name] = time.monotonic() - began
        await vault.close()
        await db.close()

    asyncio.run(run())


def ours(figures: Figures, source: Path, work: Path, scale: float) -> None:
    """Back up, thin out, back up, forget, collect; then backups beside collections."""
    home = work / "stead"
    home.mkdir()
    installation = Installation(home)
    with installation.enrolled():
        machine = only_machine(installation)
        backup = ("stead", "backup", "run", machine, "--path", str(source))
        installation.must(*backup)
        thin_out(source)
        installation.must(*backup)
        # Half of it is gone: the controller wants to hear that this is right.
        installation.must("stead", "backup", "unfreeze", machine, "--reason", "a measurement")
        installation.must("stead", "backup", "keep", machine, "--last", "1", "--floor", "1")
        installation.must("stead", "backup", "forget", machine, "--by-rule", "--yes")
    objects = home / "controller" / "objects"
    before = measure(objects)[1]
    collect(home, figures)
    figures.stored["Stead"] = (before, measure(objects)[1])
    side_by_side(figures, installation, machine, work, scale)


def side_by_side(
    figures: Figures, installation: Installation, machine: str, work: Path, scale: float
) -> None:
    """Backups of new trees, by turns without and with collections that never end."""
    os.environ["PYTHONPATH"] = str(ROOT)
    with installation.service("python", "-m", "bench.eager", "controller", "serve") as controller:
        installation.until(controller, "stead", "controller", "status")
        with installation.service("stead-agent", "run") as agent:
            installation.until(agent, *LINKED, said='"linked": true')
            for number in range(2 * PAIRS):
                source = work / f"beside{number}"
                large_files(source, total=int(BESIDE_BYTES * scale), seed=10 + number)
                backup = ("stead", "backup", "run", machine, "--path", str(source))
                size = measure(source)[1]
                if number % 2:
                    with collecting(figures, installation, machine):
                        figures.beside.append(size / MB / took(installation, *backup))
                else:
                    figures.alone.append(size / MB / took(installation, *backup))
                shutil.rmtree(source)


@contextmanager
def collecting(figures: Figures, installation: Installation, machine: str) -> Iterator[None]:
    """One collection after the other, each with the restore point before to forget."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            installation.run("stead", "backup", "unfreeze", machine, "--reason", "a measurement")
            installation.run("stead", "backup", "forget", machine, "--by-rule", "--yes")
            installation.must("stead", "vault", "collect")
            figures.rounds += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def took(installation: Installation, *argv: str) -> float:
    """The seconds of a command that succeeds."""
    began = time.monotonic()
    installation.must(*argv)
    return time.monotonic() - began


def restic(figures: Figures, source: Path, work: Path, _scale: float) -> None:
    """The same with a local repository."""
    repository = work / "restic"
    environment = {
        **os.environ,
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": str(work / "restic-cache"),
    }
    base = ["restic", "-r", str(repository)]
    timed([*base, "init", "--repository-version", "2"], environment, work)
    timed([*base, "backup", str(source)], environment, work)
    thin_out(source)
    timed([*base, "backup", str(source)], environment, work)
    before = measure(repository)[1]
    prune = [*base, "forget", "--keep-last", "1", "--prune"]
    figures.seconds["restic"] = timed(prune, environment, work)[0]
    figures.stored["restic"] = (before, measure(repository)[1])


def render(figures: Figures) -> str:
    """The tables."""
    total = figures.seconds["first collection"] + figures.seconds["second collection"]
    lines = [
        "| work | seconds | MB stored before | after | freed, MB/s |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in (("Stead", total), ("restic", figures.seconds["restic"])):
        before, after = figures.stored[name]
        what = "two collections" if name == "Stead" else "forget --prune"
        freed = (before - after) / MB / seconds
        lines.append(
            f"| {name}, {what} | {seconds:.2f} | {before / MB:,.0f} | {after / MB:,.0f} "
            f"| {freed:,.0f} |"
        )
    swept = figures.last.swept
    lines += ["", "| phase | seconds | MB read or moved |", "|---|---|---|"]
    for phase in dict.fromkeys(PHASES.values()):
        moved = figures.moved[phase]
        shown = f"{moved / MB:,.1f}" if moved else "–"
        lines.append(f"| {phase} | {figures.phases[phase]:.3f} | {shown} |")
    each = 1000 * figures.phases["drop dead packs"] / max(swept.dropped_packs, 1)
    lines += [
        "",
        f"{figures.last.chunks:,} chunks; {swept.dropped_packs} packs dropped, {each:.1f} ms "
        f"each; {swept.rewritten_packs} written anew.",
        "",
        "| backup of large files over TLS | MB/s, each run |",
        "|---|---|",
        "| alone | " + ", ".join(f"{one:.0f}" for one in figures.alone) + " |",
        f"| beside collections ({figures.rounds} of them) | "
        + ", ".join(f"{one:.0f}" for one in figures.beside)
        + " |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description="Collection beside restic's prune.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the trees' sizes")
    parser.add_argument("--work", type=Path, default=None, help="a directory with 20 GB free")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="stead-collect-", dir=options.work) as name:
        work = Path(name)
        for program in (ours, restic):
            source = work / "source"
            make_tree(source, options.scale)
            program(figures, source, work, options.scale)
            shutil.rmtree(source)
            print(f"  {program.__name__}: {figures.seconds}", file=sys.stderr, flush=True)
            subprocess.run(["sync"], check=True)
    print(render(figures))


if __name__ == "__main__":
    main()
