"""A run that goes by what was watched makes the tree of a full walk, or walks and says why."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backup.backed_up import BackupReport
from agent.watch.evidence import Why
from agent.watch.watcher import Bounds
from tests.unit.backup.trees import picture
from tests.unit.backup.watched import WatchedMachine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WatchedMachine]:
    made = WatchedMachine(tmp_path)
    chance = random.Random(3)
    for folder in range(40):
        directory = made.files / f"folder{folder:02}" / "inner"
        directory.mkdir(parents=True)
        for number in range(50):
            (directory / f"file{number:03}").write_bytes(chance.randbytes(chance.randint(0, 900)))
    (made.files / "big").write_bytes(chance.randbytes(600_000))
    made.run()
    yield made
    made.stop()


def watched(machine: WatchedMachine) -> BackupReport:
    """A run that went by what was watched, and made what a walk makes."""
    report = machine.run_beside_a_walk()
    assert report.detector == "watch"
    restored, _ = machine.restore(report.root)
    assert picture(restored) == picture(machine.files)
    return report


def test_nothing_changed_reads_nothing(machine: WatchedMachine) -> None:
    assert watched(machine).counts.read_files == 0


def test_a_few_edits_visit_only_their_directories(machine: WatchedMachine) -> None:
    for number in range(10):
        (machine.files / f"folder{number:02}" / "inner" / "file007").write_bytes(b"edited")
    (machine.files / "folder20" / "inner" / "file001").unlink()
    (machine.files / "folder21" / "inner" / "file001").chmod(0o600)
    os.setxattr(machine.files / "folder22" / "inner" / "file003", "user.note", b"set")
    (machine.files / "folder23").chmod(0o700)
    assert watched(machine).counts.read_files == 12


def test_directories_that_move_appear_and_vanish(machine: WatchedMachine) -> None:
    files = machine.files
    (files / "folder01").rename(files / "folder02" / "moved")
    (files / "folder03" / "inner").rename(files / "folder03" / "inner2")
    (files / "new" / "deep" / "er").mkdir(parents=True)
    (files / "new" / "deep" / "er" / "file").write_bytes(b"new")
    for path in sorted((files / "folder05").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (files / "folder05").rmdir()
    (files / "folder05").write_bytes(b"a file now")
    watched(machine)
    # What moved is watched where it is now.
    (files / "folder02" / "moved" / "inner" / "file000").write_bytes(b"changed after the move")
    (files / "new" / "deep" / "er" / "file").write_bytes(b"changed")
    machine.memory.state.unlink(missing_ok=True)
    machine.run()
    (files / "folder02" / "moved" / "inner" / "file000").write_bytes(b"changed again")
    watched(machine)


def test_a_write_through_one_name_shows_under_the_others(machine: WatchedMachine) -> None:
    first = machine.files / "folder01" / "inner" / "file001"
    (machine.files / "folder30" / "link").hardlink_to(first)
    report = machine.run()
    # The first name's directory was told nothing.
    assert report.detector == f"walk: {Why.LINKS}"
    with (machine.files / "folder30" / "link").open("r+b") as file:
        file.write(b"through the other name")
    watched(machine)


def test_a_write_through_a_name_elsewhere_shows(machine: WatchedMachine) -> None:
    outside = machine.home / "outside"
    (machine.files / "folder01" / "inner" / "a").hardlink_to(
        machine.files / "folder01" / "inner" / "file001"
    )
    outside.hardlink_to(machine.files / "folder01" / "inner" / "a")
    machine.run()
    outside.write_bytes(b"written outside")
    watched(machine)


def test_a_write_through_a_mapping_shows(machine: WatchedMachine) -> None:
    with (machine.files / "big").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    # Another process, since the one that looks does not look at itself.
    read, write = os.pipe()
    back_read, back_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        mapped[1000:1010] = b"0123456789"
        os.write(back_write, b"!")
        os.read(read, 1)
        os._exit(0)
    mapped.close()
    try:
        machine.run()
        os.write(write, b"!")
        os.read(back_read, 1)
        assert watched(machine).counts.read_files == 1
    finally:
        os.write(write, b"!")
        os.waitpid(child, 0)
        for fd in (read, write, back_read, back_write):
            os.close(fd)


def test_what_changed_while_a_run_failed_is_told_to_the_next(machine: WatchedMachine) -> None:
    (machine.files / "folder01" / "inner" / "file001").write_bytes(b"first")
    machine.handed()  # to a run that came to nothing
    (machine.files / "folder02" / "inner" / "file001").write_bytes(b"second")
    assert watched(machine).counts.read_files == 2


def test_a_busy_subtree_is_walked_whole(tmp_path: Path) -> None:
    machine = WatchedMachine(tmp_path, Bounds(rate=50))
    try:
        busy = machine.files / "busy" / "inner"
        busy.mkdir(parents=True)
        (machine.files / "calm").mkdir()
        for number in range(20):
            (machine.files / "calm" / f"f{number}").write_bytes(b"calm")
        machine.run()
        for number in range(400):
            (busy / f"f{number}").write_bytes(b"%d" % number)
        handed = machine.handed()
        assert any(path.endswith(b"busy/inner") for path in handed.subtrees)
        watched(machine)
    finally:
        machine.stop()


def test_a_missed_change_switches_watching_off_and_walks(machine: WatchedMachine) -> None:
    handed = machine.handed()
    for path in machine.files.glob("folder*/inner/file*"):
        path.write_bytes(b"nobody was told")
    import msgspec

    lying = msgspec.structs.replace(handed, wall_ns=handed.wall_ns + 3_600_000_000_000)
    report = machine.run(lying)
    assert report.detector == f"walk: {Why.MISSED}"
    assert report.missed
    assert report.is_complete
    restored, _ = machine.restore(report.root)
    assert picture(restored) == picture(machine.files)
    assert machine.off.exists()
