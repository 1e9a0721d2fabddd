"""What looking after backups costs: scrub, the sample after a backup, a drill.

    python -m bench.trust [--files 20000] [--large-mb 500] [--work DIR]

A controller and an agent on this machine, over mutual TLS, as `bench.backup` has them.
The scrub reads past the page cache, so its rate is the disk's or BLAKE3's, whichever is
less. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.trees import large_files, small_tree
from demo.installation import LINKED, Installation

MB = 1_000_000


def measure(installation: Installation, source: Path) -> list[tuple[str, str]]:
    """Back up once and again, drill, scrub; what each took."""
    (listed,) = _rows(installation, *LINKED[:-2])
    name = str(listed["name"])
    installation.must("stead", "backup", "set", name, "--path", str(source), "--drill", "weekly")
    (first,) = _rows(installation, "stead", "backup", "run", name)
    (second,) = _rows(installation, "stead", "backup", "run", name)
    samples = _rows(installation, "stead", "backup", "drill", "ls", name, "--samples")
    (drill,) = _rows(installation, "stead", "backup", "drill", "run", name)
    began = time.monotonic()
    scrub = _one(installation, "stead", "vault", "scrub", "--now")
    took = time.monotonic() - began
    if drill["wrong"] or scrub["faults"]:
        raise SystemExit(f"something is wrong: {drill} {scrub}")
    return [
        ("files, MB backed up", f"{first['files']:,}, {first['bytes'] / MB:,.0f}"),
        ("a second backup, of which", f"{second['seconds']:.2f} s"),
        (
            "its sample: files decoded, time",
            f"{samples[0]['files']}, {samples[0]['took_ms']} ms",
        ),
        (
            "a drill: files, MB, time of the restore",
            f"{drill['files']}, {drill['bytes'] / MB:.1f}, {drill['took_ms'] / 1000:.2f} s",
        ),
        (
            "a scrub of everything: MB, time, rate",
            f"{scrub['stored_bytes'] / MB:,.0f}, {took:.1f} s, "
            f"{scrub['stored_bytes'] / MB / took:,.0f} MB/s",
        ),
    ]


def _rows(installation: Installation, *words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(installation.must(*words, "--output", "json"))
    return rows


def _one(installation: Installation, *words: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(installation.must(*words, "--output", "json"))
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--large-mb", type=int, default=500)
    parser.add_argument("--work", type=Path, default=None)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="stead-trust-", dir=given.work))
    try:
        source = work / "source"
        small_tree(source / "small", files=given.files, total=given.files * 3800)
        large_files(source / "large", total=given.large_mb * MB)
        home = work / "home"
        home.mkdir()
        installation = Installation(home)
        with installation.enrolled():
            found = measure(installation, source)
    finally:
        shutil.rmtree(work)
    print("| what | figure |\n|---|---|")
    for what, figure in found:
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
