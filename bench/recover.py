"""Restoring with neither controller nor database: time and peak memory.

    python -m bench.recover [--scale 1.0] [--work DIR]

200,000 small files and four large ones, 3 GB, are backed up; the controller is stopped;
`stead vault recover` restores all of it from the objects and the recovery key, and what
came back is compared. The restore by the running controller, before, is for comparison.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from bench.backup import only_machine
from bench.memory_use import peak_of, service_of
from bench.trees import LARGE_BYTES, SMALL_BYTES, SMALL_FILES, large_files, small_tree
from demo.comparison import compare, measure
from demo.installation import BIN, Installation

KIB = 1024


def recover(installation: Installation, target: Path, *point: str) -> tuple[float, float]:
    """Recover to a directory; seconds, and peak memory in MB."""
    home = installation.home
    key = next((home / "operator" / "tenants").glob("*.key"))
    argv = [str(BIN / "stead"), "vault", "recover", *point]
    argv += ["--objects", str(home / "controller" / "objects"), "--key", str(key)]
    argv += ["--to", str(target)]
    began = time.monotonic()
    with (home / "recover.log").open("ab") as log:
        process = subprocess.Popen(
            argv, env=installation.environment, cwd=home, stdout=log, stderr=log
        )
        with peak_of(psutil.Process(process.pid)) as peak:
            process.wait()
    took = time.monotonic() - began
    if process.returncode != 0:
        raise SystemExit(f"recover ended with {process.returncode}; see {home / 'recover.log'}")
    return took, peak() * KIB / 1e6


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description="Recovery from objects alone.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the trees' sizes")
    parser.add_argument("--work", type=Path, default=None, help="a directory with 20 GB free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stead-recover-", dir=options.work) as name:
        work = Path(name)
        source = work / "source"
        small_tree(
            source / "small",
            files=int(SMALL_FILES * options.scale),
            total=int(SMALL_BYTES * options.scale),
        )
        large_files(source / "large", total=int(LARGE_BYTES * options.scale))
        home = work / "home"
        home.mkdir()
        installation = Installation(home)
        with installation.enrolled():
            machine = only_machine(installation)
            installation.must("stead", "backup", "run", machine, "--path", str(source))
            agent = service_of(home, "stead-agent", "run")
            back = ("stead", "backup", "restore", machine, "latest", str(source), "--to")
            began = time.monotonic()
            with peak_of(agent) as peak:
                installation.must(*back, str(work / "back"))
            restored = time.monotonic() - began, peak() * KIB / 1e6
        whole = recover(installation, work / "all")
        part = recover(installation, work / "part", "latest", str(source / "large" / "syslog"))
        found = compare(source, work / "all" / source.relative_to("/"))
        if found.differences:
            raise SystemExit(f"recovered with differences: {found.differences[:3]}")
        files, size = measure(source)
        packs = sum(1 for one in (home / "controller" / "objects").glob("*/packs/*/*"))
        print(
            f"{files:,} files, {size / 1e9:.2f} GB, {packs} packs.\n\n"
            "| work | seconds | peak MB |\n|---|---|---|"
        )
        for work_name, (took, memory) in {
            "restore by the running controller (agent)": restored,
            "`vault recover`, everything": whole,
            "`vault recover`, one file of 0.44 GB" if options.scale == 1 else "one file": part,
        }.items():
            print(f"| {work_name} | {took:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
