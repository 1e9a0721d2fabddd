"""A collection on a real disk that fills up, or whose power is cut, loses no restore point.

The disk is a small ext4. Full: it has room for a few bytes more each time, so that it is
full at another write. Cut: what a collection had said to be done must be so, after each
of its steps. The counts are printed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import Code, SteadError
from tests.faults.collection_world import (
    PACK_BYTES,
    Fault,
    Tally,
    collect,
    finish,
    prepare,
    run,
    stored_bytes,
)
from tests.faults.disk import Disk, need_disks

pytestmark = pytest.mark.root

SIZE = "16M"
BLOCK = 4096
ROOM_BLOCKS = 80
"""With so much room a collection of this vault is never refused."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a vault on it, not mounted."""
    need_disks()
    disk = Disk(tmp_path_factory.mktemp("image"), SIZE)
    try:
        asyncio.run(prepare(disk.mounted / "home"))
    finally:
        disk.unmount()
    return disk.image


@pytest.fixture(scope="module")
def most_bytes(image: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    disk = Disk(tmp_path_factory.mktemp("whole"), like=image)
    try:
        asyncio.run(collect(disk.mounted / "home"))
        return stored_bytes(disk.mounted / "home") + PACK_BYTES
    finally:
        disk.unmount()


class Trial:
    """One copy of the disk, and what becomes of it."""

    def __init__(self, folder: Path, image: Path, tally: Tally, most_bytes: int) -> None:
        self.disk = Disk(folder, like=image)
        self.home = self.disk.mounted / "home"
        self._folder = folder
        self._tally = tally
        self._most = most_bytes

    def __enter__(self) -> Trial:
        self._tally.tried += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                asyncio.run(finish(self.home, self._tally, self._most))
        finally:
            # What failed may have files open still, and is to be told as it is.
            self.disk.unmount(*(["--lazy"] if kind else []))
            shutil.rmtree(self._folder)
        if kind is None:
            assert (self._tally.lost, self._tally.wrong) == (0, 0), str(self._tally)


def fill(trial: Trial, free_bytes: int, tally: Tally) -> None:
    """Collect with so little room, then make some."""
    ballast = trial.disk.leave(free_bytes)
    refused = None
    try:
        asyncio.run(collect(trial.home))
    except SteadError as error:
        refused = error.code
    assert refused in (None, Code.STORE_FULL)
    tally.struck += refused is not None
    ballast.unlink()


def steps_until(trial: Trial, last: int) -> int:
    """Cut the power after the step of this number; how many there were."""
    with subprocess.Popen(
        [
            sys.executable,
            "-B",
            "-m",
            "tests.faults.collection_world",
            str(trial.home),
            "--stepwise",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        count = 0
        for count, _ in enumerate(process.stdout, 1):
            if count == last:
                break
            process.stdin.write("\n")
            process.stdin.flush()
        trial.disk.cut()
        process.kill()
    trial.disk.remount()
    return count


@pytest.mark.parametrize("blocks", [6, 40])
def test_a_collection_on_a_full_disk_loses_nothing(
    image: Path, most_bytes: int, tmp_path: Path, blocks: int
) -> None:
    tally = Tally()
    with Trial(tmp_path / "disk", image, tally, most_bytes) as trial:
        fill(trial, blocks * BLOCK, tally)
    assert tally.struck


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_collection_on_a_disk_full_at_any_write_loses_nothing(
    image: Path, most_bytes: int, tmp_path: Path
) -> None:
    tally = Tally()
    for blocks in range(ROOM_BLOCKS):
        with Trial(tmp_path / "disk", image, tally, most_bytes) as trial:
            fill(trial, blocks * BLOCK, tally)
    print(f"disk full: {tally}")
    assert 0 < tally.struck < tally.tried


@pytest.mark.parametrize("step", [10, 40])
def test_a_power_cut_after_a_step_loses_nothing(
    image: Path, most_bytes: int, tmp_path: Path, step: int
) -> None:
    with Trial(tmp_path / "disk", image, Tally(), most_bytes) as trial:
        assert steps_until(trial, step) == step


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_power_cut_after_any_step_loses_nothing(
    image: Path, most_bytes: int, tmp_path: Path
) -> None:
    tally, step, reached = Tally(), 0, True
    while reached:
        step += 1
        with Trial(tmp_path / "disk", image, tally, most_bytes) as trial:
            reached = steps_until(trial, step) == step
            tally.struck += reached
    print(f"power cut after a step: {tally}")
    assert tally.struck > 20


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("strace") is None, reason="not run: there is no strace")
def test_a_power_cut_at_any_call_loses_nothing(
    image: Path, most_bytes: int, tmp_path: Path
) -> None:
    tally = Tally()
    with Trial(tmp_path / "disk", image, Tally(), most_bytes) as trial:
        calls = run(trial.home, None).calls
    for call in ("fsync", "fdatasync", "link", "linkat", "unlink"):
        for number in range(1, calls.get(call, 0) + 1):
            with Trial(tmp_path / "disk", image, tally, most_bytes) as trial:
                tally.struck += run(trial.home, Fault(call, number)).was_killed
                trial.disk.cut()
                trial.disk.remount()
    print(f"power cut at a call: {tally}")
    assert tally.struck > 20
