"""What changes under a backup's feet is never taken for what it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.backup.control import Control
from agent.backup.vault import Session
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture

CLOCK_BEHIND_NS = -3_600_000_000_000
"""The file system's clock is so far behind that nothing looks fresh."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Meddling(Control):
    """Does something each time that the backup asks whether it may go on."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        super().__init__()
        self._meddle = meddle

    def hold(self, keep: Callable[[], None], left: Callable[[], bool] = lambda: False) -> None:
        self._meddle()
        super().hold(keep, left)


def old(machine: Machine) -> None:
    """Let every time stamp be one that can be trusted."""
    for path in [machine.files, *machine.files.rglob("*")]:
        os.utime(path, ns=(0, 1_600_000_000_000_000_000), follow_symlinks=False)


def is_open(file: Path) -> bool:
    """Whether this process has it open."""
    found = Path("/proc/self/fd").iterdir()
    return any(os.path.realpath(one) == str(file) for one in found)


def restored(machine: Machine, report: Any) -> dict[bytes, Any]:
    there, done = machine.restore(report.root)
    assert not done.failed.count
    return picture(there)


def test_a_torn_file_is_read_again_whatever_its_clock_says(machine: Machine) -> None:
    file = machine.files / "log"
    file.write_bytes(b"x" * 1_000_000)

    def write() -> None:
        if is_open(file):
            with file.open("ab") as written:
                written.write(b"more")

    report = machine.back_up(racy_ns=CLOCK_BEHIND_NS, control=Meddling(write))
    assert report.counts.changed_while_read == 1
    again = machine.back_up(racy_ns=CLOCK_BEHIND_NS)
    assert restored(machine, again) == picture(machine.files)


def test_what_a_dead_run_found_unsound_is_not_gone_on_from(machine: Machine) -> None:
    for number in range(2_000):
        (machine.files / f"file{number:04}").write_bytes(b"%d" % number * 200)
    old(machine)
    machine.back_up()
    damaged = machine.vault.get

    def die(step: str) -> None:
        if step == "committed":
            raise KeyboardInterrupt

    machine.vault.lose = die
    machine.vault.get = lambda ids: (bytes(len(stored)) for stored in damaged(ids))
    with pytest.raises(KeyboardInterrupt):
        machine.back_up()
    machine.vault.lose = lambda _step: None
    machine.vault.get = damaged
    assert machine.back_up().counts.read_files == 2_000
