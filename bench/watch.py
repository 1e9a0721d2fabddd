"""A backup of ten changed files among many, by watch: Stead beside restic.

    python -m bench.watch [--rounds 5] [--files 200000] [--times 10] [--work DIR]

The same at `--times` as many files shows that the time follows what changed. Three
figures of ours: the whole command `stead backup run` over mutual TLS, with an operator's
and a worker's process starting; the agent's part of it, from the order's arrival to its
outcome, as its log has it; the backup itself, from its first message to the controller to
the acknowledged commit. restic is its whole command. Both have a warm cache and have made
one backup before. Medians. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.backup import only_machine, timed
from bench.compiled import compile_packages
from bench.trees import SMALL_BYTES, SMALL_FILES, small_tree
from demo.installation import Installation

CHANGED = 10
WHOLE, AGENT, ITSELF, RESTIC = "whole command", "agent's part", "backup itself", "restic"
Figures = dict[tuple[int, str], list[float]]


def change(source: Path, files: int, seed: random.Random) -> None:
    """Change ten files, each in a directory of its own."""
    for number in seed.sample(range(files // 50), CHANGED):
        place = source / f"area{number // 100:03}" / f"part{number % 100:02}"
        path = sorted(place.iterdir())[seed.randrange(10)]
        path.write_bytes(seed.randbytes(2_000))


def ours(figures: Figures, source: Path, files: int, rounds: int, work: Path) -> None:
    """Our figures; every run has to have gone by what was watched."""
    home, seed = work / "stead", random.Random(5)
    home.mkdir()
    installation = Installation(home)
    with installation.enrolled():
        machine = only_machine(installation)
        installation.must(
            "stead", "backup", "set", machine, "--path", str(source), "--schedule", "weekly"
        )
        run = ("stead", "backup", "run", machine, "--output", "json")
        installation.must(*run)
        for _ in range(rounds):
            change(source, files, seed)
            started = time.monotonic()
            said = json.loads(installation.must(*run))
            took = time.monotonic() - started
            [result] = said if isinstance(said, list) else [said]
            # What the last round changed was too fresh to be trusted: it may be read again.
            if result["detector"] != "watch" or result["read_files"] > 2 * CHANGED:
                raise SystemExit(f"this run was not by watch: {result}")
            figures.setdefault((files, WHOLE), []).append(took)
            figures.setdefault((files, ITSELF), []).append(sum(result["phases"].values()))
            figures.setdefault((files, AGENT), []).append(_agents_part(home / "stead-agent.log"))
            print(f"  {files:,}: {took:.2f} s, {result['phases']}", file=sys.stderr, flush=True)
    shutil.rmtree(home)


def _agents_part(log: Path) -> float:
    """Seconds between the last order's arrival and its end."""
    times: dict[str, datetime] = {}
    for line in log.read_text().splitlines():
        if line.startswith("{"):
            event = json.loads(line)
            times[event["event"]] = datetime.fromisoformat(event["at"])
    return (times["task_ended"] - times["order_accepted"]).total_seconds()


def restic(figures: Figures, source: Path, files: int, rounds: int, work: Path) -> None:
    """The same with a local repository."""
    repository, seed = work / "restic", random.Random(6)
    environment = {
        **os.environ,
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": str(work / "restic-cache"),
    }
    base = ["restic", "-r", str(repository)]
    timed([*base, "init", "--repository-version", "2"], environment, work)
    timed([*base, "backup", str(source)], environment, work)
    for _ in range(rounds):
        change(source, files, seed)
        took, _ = timed([*base, "backup", str(source)], environment, work)
        figures.setdefault((files, RESTIC), []).append(took)
        print(f"  {files:,}: restic {took:.2f} s", file=sys.stderr, flush=True)
    shutil.rmtree(repository)
    shutil.rmtree(work / "restic-cache")


def render(figures: Figures, rounds: int) -> str:
    """The table."""
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores; {CHANGED} files changed, medians of "
        f"{rounds}; seconds, and in brackets restic's by it.",
        "",
        f"| files | {ITSELF} | {AGENT} | {WHOLE} | {RESTIC} |",
        "|---|---|---|---|---|",
    ]
    for files in sorted({files for files, _ in figures}):
        peer = median(figures[files, RESTIC])
        cells = [
            f"{median(figures[files, what]):.2f} ({peer / median(figures[files, what]):.0f}×)"
            for what in (ITSELF, AGENT, WHOLE)
        ]
        lines.append(f"| {files:,} | " + " | ".join(cells) + f" | {peer:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Ten changed files among many.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=SMALL_FILES)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--work", type=Path, default=None, help="a directory with 20 GB free")
    options = parser.parse_args()
    compile_packages()
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="stead-bench-", dir=options.work) as name:
        work = Path(name)
        for files in (options.files, options.files * options.times):
            source = work / f"files{files}"
            small_tree(source, files=files, total=SMALL_BYTES * options.files // SMALL_FILES)
            ours(figures, source, files, options.rounds, work)
            restic(figures, source, files, options.rounds, work)
            shutil.rmtree(source)
    print(render(figures, options.rounds))


if __name__ == "__main__":
    main()
