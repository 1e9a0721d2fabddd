"""Whoever writes a put's file is killed at each of its system calls; the next run ends it well."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from protocol.parcel import PIECE_BYTES
from tests.unit.agent.test_files import names, order_of, parcels_of, put

CALLS = (
    *("mkdirat", "ftruncate", "pwrite64", "fsync", "fchown", "fchmod"),
    *("renameat", "linkat", "unlinkat"),
)
CONTENT = bytes(range(256)) * ((2 * PIECE_BYTES + 512) // 256)
PUT = """if True:
    import sys
    from pathlib import Path
    from tests.faults.test_put_kill import CONTENT, order_of, parcels_of, put
    put(order_of(Path(sys.argv[1]), CONTENT, make_directories=True, **eval(sys.argv[2])),
        parcels_of(CONTENT))
"""

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="not run: strace is not installed"
)


def traced(path: Path, options: dict[str, object], *more: str) -> tuple[int, list[str]]:
    """Put it in a process of its own; how that ended, and its calls."""
    said = path.parent.parent / "trace"
    words = ("strace", "-f", "-qq", "-o", str(said), "-e", f"trace={','.join(CALLS)}", *more)
    done = subprocess.run(
        [*words, sys.executable, "-c", PUT, path, repr(options)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    lines = [line.split(maxsplit=1)[1] for line in said.read_text().splitlines()]
    return done.returncode, [line.partition("(")[0] for line in lines]


@pytest.mark.parametrize(
    "options",
    [
        {"verify": True},
        {"no_overwrite": True},
        pytest.param(
            {"owner": "12345"},
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root"),
        ),
    ],
)
def test_a_put_killed_at_any_call_is_ended_by_the_next_run(
    tmp_path: Path, options: dict[str, object]
) -> None:
    code, calls = traced(tmp_path / "whole" / "a", options)
    assert code == 0
    for call, count in Counter(calls).items():
        if call not in CALLS:
            continue
        for when in range(1, count + 1):
            path = tmp_path / f"{call}-{when}" / "a"
            if not options.get("no_overwrite"):
                path.parent.mkdir()
                path.write_bytes(b"old")
            inject = f"inject={call}:signal=KILL:when={when}"
            code, _ = traced(path, options, "-e", inject)
            if code == 0:
                continue  # it makes this call less often where the directory is there
            assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), (call, when, code)
            # The old one or the new one, whole.
            assert not path.exists() or path.read_bytes() in (b"old", CONTENT), (call, when)
            put(order_of(path, CONTENT, make_directories=True, **options), parcels_of(CONTENT))
            assert path.read_bytes() == CONTENT, (call, when)
            assert names(path.parent) == ["a"], (call, when)
