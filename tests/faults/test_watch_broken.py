"""Whatever breaks the chain of events, the next run walks, names it, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.host import clock
from agent.watch.evidence import Clocks, Why
from agent.watch.inotify import Event, Inotify
from agent.watch.watcher import Bounds
from tests.unit.backup.trees import picture
from tests.unit.backup.watched import WatchedMachine

NEEDS_ROOT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="not run: mounting needs root"
)
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WatchedMachine]:
    made = WatchedMachine(tmp_path)
    for number in range(5):
        (made.files / f"d{number}").mkdir()
        (made.files / f"d{number}" / "file").write_bytes(b"%d" % number)
    made.run()
    assert made.run().detector == "watch"
    yield made
    made.stop()


def assert_walked(machine: WatchedMachine, why: Why) -> None:
    """The next run walks for this reason, holds everything, and the one after is watched."""
    report = machine.run()
    assert report.detector == f"walk: {why}"
    restored, _ = machine.restore(report.root)
    assert picture(restored) == picture(machine.files)
    (machine.files / "d1" / "file").write_bytes(b"changed after " + why.encode())
    after = machine.run()
    assert after.detector == "watch"
    assert after.counts.read_files == 1


@NEEDS_ROOT
def test_an_overflow_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = QUEUE.read_text()
    try:
        QUEUE.write_text("16")
        machine = WatchedMachine(tmp_path)
        for number in range(5):
            (machine.files / f"d{number}").mkdir()
        # The watcher's thread has begun once a run has asked it.
        machine.run()
    finally:
        QUEUE.write_text(before)
    try:
        # The queue has its length for life, and nobody reads it for a while.
        gate, read = threading.Event(), Inotify.read

        def late(self: Inotify) -> Iterator[Event]:
            gate.wait(20)
            return read(self)

        monkeypatch.setattr(Inotify, "read", late)
        for number in range(300):
            (machine.files / f"d{number % 5}" / f"f{number}").touch()
        gate.set()
        report = machine.run()
        assert report.detector == f"walk: {Why.OVERFLOW}"
        assert report.root.files == 300
    finally:
        machine.stop()


def test_an_agent_that_was_not_running(machine: WatchedMachine) -> None:
    machine.stop()
    (machine.files / "d1" / "file").write_bytes(b"nobody watched")
    machine.watcher = machine.start_watcher()
    assert_walked(machine, Why.GAP)


@NEEDS_ROOT
def test_something_mounted_and_unmounted(machine: WatchedMachine) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", machine.files / "d2"], check=True)
    try:
        (machine.files / "d2" / "above").write_bytes(b"in the file system above")
        assert_walked(machine, Why.REMOUNT)
    finally:
        subprocess.run(["umount", machine.files / "d2"], check=True)
    assert_walked(machine, Why.REMOUNT)


@NEEDS_ROOT
def test_a_watched_file_system_that_goes_away(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", files], check=True)
    machine = WatchedMachine(tmp_path)
    try:
        (files / "d1").mkdir()
        (files / "d1" / "file").write_bytes(b"one")
        machine.run()
        subprocess.run(["umount", files], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", files], check=True)
        (files / "d1").mkdir()
        (files / "d1" / "file").write_bytes(b"two")
        assert_walked(machine, Why.REMOUNT)
    finally:
        machine.stop()
        subprocess.run(["umount", files], check=True)


def test_a_clock_that_was_set_back(
    machine: WatchedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.host import clock

    (machine.files / "d1" / "file").write_bytes(b"changed")
    with monkeypatch.context() as patch:
        patch.setattr(clock, "wall_ns", lambda: time.time_ns() - 3_600_000_000_000)
        report = machine.run()
    assert report.detector == f"walk: {Why.CLOCK}"
    assert report.counts.read_files == 1


def test_other_rules(machine: WatchedMachine) -> None:
    paths = [bytes(machine.files / "d1"), bytes(machine.files / "d2")]
    assert machine.run(paths=paths).detector == f"walk: {Why.RULES}"
    assert_walked(machine, Why.RULES)


def test_a_run_that_was_not_committed(machine: WatchedMachine) -> None:
    commit = machine.vault.commit

    def gone(*_: object) -> None:
        raise ConnectionError("killed here")

    (machine.files / "d1" / "file").write_bytes(b"changed before the run that failed")
    machine.vault.commit = gone
    with pytest.raises(ConnectionError):
        machine.run()
    machine.vault.commit = commit
    assert_walked(machine, Why.UNCOMMITTED)


def test_a_run_of_somebody_else_in_between(machine: WatchedMachine) -> None:
    kept = machine.memory.state.read_bytes()
    (machine.files / "d1" / "file").write_bytes(b"changed")
    machine.run()
    machine.memory.state.write_bytes(kept)
    assert_walked(machine, Why.UNCOMMITTED)


def test_a_full_walk_that_is_due(machine: WatchedMachine) -> None:
    from agent.backup.tree.state import load_head
    from agent.watch.evidence import WALK_EVERY_NS

    head = load_head(machine.memory.state)
    assert head is not None
    assert head.evidence is not None
    late = Clocks(time.time_ns() + WALK_EVERY_NS, head.evidence.clocks.boot_ns + WALK_EVERY_NS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "wall_ns", lambda: late.wall_ns)
        patch.setattr(clock, "boot_ns", lambda: late.boot_ns)
        assert machine.run().detector == f"walk: {Why.SCHEDULED}"


def test_more_directories_than_may_be_watched(tmp_path: Path) -> None:
    machine = WatchedMachine(tmp_path, Bounds(directories=3))
    try:
        for number in range(6):
            (machine.files / f"d{number}").mkdir()
            (machine.files / f"d{number}" / "file").write_bytes(b"one")
        machine.run()
        (machine.files / "d5" / "file").write_bytes(b"two")
        report = machine.run()
        assert report.detector == f"walk: {Why.LIMIT}"
        assert report.counts.read_files == 1
    finally:
        machine.stop()


def test_a_volume_that_was_switched_off(machine: WatchedMachine) -> None:
    from agent.watch.switched_off import load_off

    handed = machine.handed()
    for path in machine.files.glob("d*/file"):
        path.write_bytes(b"nobody was told")
    lying = msgspec.structs.replace(handed, wall_ns=handed.wall_ns + 3_600_000_000_000)
    assert machine.run(lying).detector == f"walk: {Why.MISSED}"
    volumes = frozenset(note.volume for note in load_off(machine.off))
    machine.stop()
    machine.watcher = machine.start_watcher(volumes)
    (machine.files / "d1" / "file").write_bytes(b"changed")
    report = machine.run()
    assert report.detector == f"walk: {Why.OFF}"
    assert report.counts.read_files == 1


def test_the_memory_of_the_last_run_is_damaged(machine: WatchedMachine) -> None:
    for path in machine.memory.path.glob("nodes.*"):
        data = bytearray(path.read_bytes())
        for place in range(0, len(data), 7):
            data[place] ^= 255
        path.write_bytes(data)
    (machine.files / "d1" / "file").write_bytes(b"changed")
    report = machine.run()
    assert report.detector.startswith("walk: ")
    restored, _ = machine.restore(report.root)
    assert picture(restored) == picture(machine.files)
