"""A disk too full for what the agent remembers ends no backup: it is a cache."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backup.tree.place import Memory
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A volume of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("not run: mounting needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def machine(tmp_path: Path, small: Path) -> Machine:
    made = Machine(tmp_path / "machine")
    made.memory = Memory(small / "memory")
    chance = random.Random(5)
    for number in range(5_000):
        folder = made.files / f"folder{number % 50:02}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number:04}").write_bytes(chance.randbytes(60))
    # While such a file is read, what stands before it comes into the tree.
    (made.files / "folder20" / "z").write_bytes(chance.randbytes(20_000_000))
    return made


def fill(small: Path, free_bytes: int) -> Path:
    ballast = small / "ballast"
    found = os.statvfs(small)
    ballast.write_bytes(bytes(found.f_bavail * found.f_frsize - free_bytes))
    return ballast


@pytest.mark.parametrize("free_bytes", [0, 4096, 16_384, 65_536])
def test_a_full_disk_costs_the_memory_of_a_backup_and_nothing_else(
    machine: Machine, small: Path, free_bytes: int
) -> None:
    machine.memory.path.mkdir()
    (machine.memory.path / "lock").touch()
    ballast = fill(small, free_bytes)
    report = machine.back_up()
    assert report.is_complete
    assert report.unremembered == "no space left on device"
    assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize >= free_bytes - 2 * 4096
    restored, done = machine.restore(report.root)
    assert not done.failed.count
    assert picture(restored) == picture(machine.files)
    ballast.unlink()
    again = machine.back_up()
    assert again.counts.read_files == 5_001
    # The folders above are everybody's: their times may have changed.
    assert again.new_chunks <= 3
    assert not again.unremembered
    assert machine.back_up().counts.read_files == 0
