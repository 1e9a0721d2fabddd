"""The power goes after a restore has written: what the next one takes for the same is the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disk import Disk, need_disks
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "machine")
    chance = random.Random(9)
    for name, written, size in (
        ("plain", 200_000, 200_000),
        ("large", 20_000_001, 20_000_001),
        ("tail", 300_000, 1_000_000),
        ("large_tail", 20_000_000, 40_000_000),
    ):
        with (made.files / name).open("wb") as file:
            file.write(chance.randbytes(written))
            file.truncate(size)
    with (made.files / "middle").open("wb") as file:
        file.write(chance.randbytes(300_000))
        file.seek(900_000)
        file.write(chance.randbytes(300_000))
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need_disks()
    made = Disk(tmp_path / "target", "200M")
    yield made
    made.unmount()


def test_after_a_power_cut_nothing_wrong_counts_as_restored(machine: Machine, disk: Disk) -> None:
    report = machine.back_up()
    target = disk.mounted / "target"
    machine.restore(report.root, target=target)
    disk.cut(keeps_names=True)
    disk.remount()
    assert (target / "files" / "tail").exists()
    restored, done = machine.restore(report.root, target=target, overwrite=True)
    assert not done.failed.count
    assert picture(restored) == picture(machine.files)
