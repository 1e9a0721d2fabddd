"""Content on standard output, when nobody takes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from controller.cli.output.standard_output import write_out
from protocol.errors import SteadError
try:
    for _ in range(64):
        write_out(bytes(100_000))
    write_out(b"")
except SteadError as error:
    raise SystemExit(f"{error.code}: {error}")
except BrokenPipeError:
    raise SystemExit(7)
"""


def test_a_full_disk_is_said_in_words() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("store_full: standard output takes no more: no space left")
    assert ended.stderr.count("\n") == 1


def test_a_reader_that_goes_away_ends_it_in_silence() -> None:
    ended = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert ended.stdout is not None
    assert ended.stderr is not None
    assert ended.stdout.read(10) == bytes(10)
    ended.stdout.close()
    said = ended.stderr.read()
    ended.stderr.close()
    assert ended.wait() in (7, 120)
    assert b"Traceback" not in said


def test_all_of_it_arrives() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
    assert (ended.returncode, len(ended.stdout)) == (0, 6_400_000)
