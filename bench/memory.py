"""Peak memory of agent and controller for a million files, and for one file of 20 GB.

    python -m bench.memory [--files 1000000] [--gigabytes 20] [--work DIR]

Each tree is backed up, backed up again unchanged, and restored, by the installed
programs over mutual TLS to a controller on this machine. The large file has holes: a
stretch of data in every 256 MiB. Prints Markdown; ends with 1 when the agent took more
than its limit.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.backup import only_machine
from bench.memory_use import peak_of, service_of
from demo.comparison import compare
from demo.installation import Installation

AGENT_LIMIT_MB = 200
KIB = 1024
PER_DIRECTORY = 500
STRETCH_BYTES = 4 * 1024 * 1024
EVERY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One command: seconds, and peak memory in MB."""

    work: str
    seconds: float
    agent_mb: float
    controller_mb: float


def million(target: Path, files: int) -> None:
    """Many small files: most are kept inside the tree, every tenth has 1 to 3 KiB."""
    source = random.Random(1)
    for number in range(files):
        place, index = divmod(number, PER_DIRECTORY)
        directory = target / f"area{place // 100:03}" / f"part{place % 100:02}"
        if index == 0:
            directory.mkdir(parents=True, exist_ok=True)
        size = source.randrange(1024, 3072) if number % 10 == 0 else source.randrange(16, 128)
        path = os.fsencode(directory / f"file{index:03}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, source.randbytes(size))
        os.close(descriptor)


def sparse(target: Path, size: int) -> None:
    """One file of `size` bytes, nearly all of it holes."""
    target.mkdir()
    source = random.Random(2)
    with (target / "disk.img").open("xb") as file:
        file.truncate(size)
        for start in range(0, size - STRETCH_BYTES, EVERY_BYTES):
            file.seek(start)
            file.write(source.randbytes(STRETCH_BYTES))


def same_sparse(one: Path, other: Path) -> bool:
    """Whether data and holes are the same, without reading the holes."""
    with one.open("rb") as left, other.open("rb") as right:
        ranges = [list(_data(file.fileno())) for file in (left, right)]
        if ranges[0] != ranges[1] or one.stat().st_size != other.stat().st_size:
            return False
        return all(
            os.pread(left.fileno(), end - start, start)
            == os.pread(right.fileno(), end - start, start)
            for start, end in ranges[0]
        )


def _data(descriptor: int) -> Iterator[tuple[int, int]]:
    size, place = os.fstat(descriptor).st_size, 0
    while place < size:
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError:
            return
        place = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, place


def measured(name: str, source: Path, work: Path) -> Iterator[Row]:
    """Back up twice and restore, in an installation of its own."""
    home = work / f"{source.name}-home"
    home.mkdir()
    installation = Installation(home)
    with installation.enrolled():
        machine = only_machine(installation)
        agent = service_of(home, "stead-agent", "run")
        controller = service_of(home, "stead", "serve")
        target = work / f"{source.name}-back"
        backup = ("stead", "backup", "run", machine, "--path", str(source))
        restore = ("stead", "backup", "restore", machine, "latest", str(source), "--to")
        for what, argv in (
            ("first backup", backup),
            ("second backup", backup),
            ("restore", (*restore, str(target))),
        ):
            with peak_of(agent) as of_agent, peak_of(controller) as of_controller:
                started = time.monotonic()
                installation.must(*argv, timeout=3600.0)
                took = time.monotonic() - started
            peaks = [kib() * KIB / 1e6 for kib in (of_agent, of_controller)]
            print(f"  {name}: {what}: {took:.1f} s, {peaks}", file=sys.stderr, flush=True)
            yield Row(f"{what}, {name}", took, *peaks)
        image = source / "disk.img"
        if image.exists():
            if not same_sparse(image, target / source.name / "disk.img"):
                raise SystemExit("the large file came back with other data or other holes")
        elif found := compare(source, target / source.name).differences:
            raise SystemExit(f"restored with differences: {found[:3]}")


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description="Peak memory for large trees and files.")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--work", type=Path, default=None, help="a directory with 20 GB free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stead-memory-", dir=options.work) as name:
        work = Path(name)
        many, large = work / "many", work / "large"
        million(many, options.files)
        rows = list(measured(f"{options.files:,} files", many, work))
        sparse(large, int(options.gigabytes * 1e9))
        rows += measured(f"one sparse file of {options.gigabytes:g} GB", large, work)
    print(f"Peak memory in MB; the agent's limit is {AGENT_LIMIT_MB}.\n")
    print("| work | seconds | agent | controller |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.work} | {row.seconds:.1f} | {row.agent_mb:.0f} | {row.controller_mb:.0f} |")
    return int(any(row.agent_mb > AGENT_LIMIT_MB for row in rows))


if __name__ == "__main__":
    sys.exit(main())
