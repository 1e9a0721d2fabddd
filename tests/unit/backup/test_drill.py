"""Drills find what is wrong, wherever it is, and leave nothing behind."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backup.backed_up import BackupReport
from agent.backup.drill import pick as picking
from agent.backup.drill.perform import Drill, Proved, decode_sample
from agent.backup.drill.pick import pick, some_entries
from agent.backup.send.control import Control
from protocol.errors import Code, SteadError
from protocol.vault.chunk import Opener
from protocol.vault.node import Root
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO, Machine

PAUSE_S = 0.7


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for folder in range(4):
        directory = made.files / f"folder{folder}" / "deep"
        directory.mkdir(parents=True)
        for number in range(30):
            (directory / f"file{number:02}").write_bytes(os.urandom(50 * number))
    (made.files / "big").write_bytes(os.urandom(3_000_000))
    (made.files / "link").symlink_to("big")
    os.link(made.files / "big", made.files / "big-too")
    with (made.files / "sparse").open("wb") as file:
        file.truncate(2_000_000)
    return made


def drill(
    machine: Machine,
    report: BackupReport,
    *canaries: Path,
    count: int = 60,
    seed: int = 1,
    control: Control | None = None,
) -> Proved:
    return Drill(
        report.root,
        vault=machine.vault,
        secret=WHO.secret,
        scratch=machine.home / "scratch",
        seed=random.Random(seed),
        progress=machine.said.append,
        patience_s=5.0,
        control=control,
    ).run(
        count=count,
        max_bytes=64 * 1024 * 1024,
        canaries=[bytes(path).lstrip(b"/") for path in canaries],
    )


def test_a_good_drill_restores_compares_and_removes(machine: Machine) -> None:
    report = machine.back_up()
    proved = drill(machine, report, machine.files / "big", machine.files / "sparse")
    assert proved.wrong == []
    assert proved.files == proved.compared == 60
    assert proved.size >= 5_000_000
    assert proved.took_s > 0
    assert not (machine.home / "scratch").exists()


def test_a_pause_in_the_middle_is_waited_for_and_is_none_of_what_the_restore_took(
    machine: Machine,
) -> None:
    report = machine.back_up()
    control = Control()
    steps: list[str] = []

    def pause_once(step: str) -> None:
        steps.append(step)
        if len(steps) == 1:
            control.wished(paused=True)
            threading.Timer(PAUSE_S, lambda: control.wished(paused=False)).start()

    machine.vault.lose = pause_once
    began = time.monotonic()
    proved = drill(machine, report, control=control)
    whole_s = time.monotonic() - began
    assert (proved.wrong, proved.files) == ([], 60)
    assert control.paused_s >= PAUSE_S
    assert 0 < proved.took_s <= whole_s - control.paused_s


def test_a_drill_of_no_file_proves_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.files / "folder").mkdir()
    (machine.files / "link").symlink_to("folder")
    report = machine.back_up()
    with pytest.raises(SteadError, match="nothing was proved") as caught:
        drill(machine, report)
    assert caught.value.code is Code.PRECONDITION
    assert drill(machine, report, machine.files / "canary").wrong
    (machine.files / "empty").touch()
    assert drill(machine, machine.back_up()).wrong == []


def test_what_an_earlier_drill_left_behind_is_removed(machine: Machine) -> None:
    left = machine.home / "scratch" / "closed"
    left.mkdir(parents=True)
    (left / "old").write_bytes(b"x")
    left.chmod(0)
    assert drill(machine, machine.back_up()).wrong == []
    assert not (machine.home / "scratch").exists()


def test_a_file_that_changed_since_is_not_compared(machine: Machine) -> None:
    report = machine.back_up()
    for path in machine.files.rglob("file*"):
        path.write_bytes(b"later")
    proved = drill(machine, report)
    assert proved.wrong == []
    assert proved.compared < proved.files


def test_a_change_that_hides_its_time_is_found(machine: Machine) -> None:
    report = machine.back_up()
    path = machine.files / "folder0" / "deep" / "file20"
    stat = path.stat()
    path.write_bytes(os.urandom(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    proved = drill(machine, report, path)
    ((wrong, reason),) = proved.wrong
    assert wrong == bytes(path).lstrip(b"/")
    assert "time and size are unchanged" in reason


def test_a_canary_that_is_not_there_is_wrong(machine: Machine) -> None:
    proved = drill(machine, machine.back_up(), machine.files / "absent")
    assert [reason for _, reason in proved.wrong] == ["the restore point has not got this canary"]


def lose(machine: Machine, report: BackupReport) -> None:
    for one in list(machine.vault.chunks):
        if machine.vault.chunks[one][5] == 0:
            del machine.vault.chunks[one]


def flip(machine: Machine, report: BackupReport) -> None:
    for one, stored in list(machine.vault.chunks.items()):
        if stored[5] == 0:
            machine.vault.chunks[one] = stored[:-1] + bytes([stored[-1] ^ 1])


def swap(machine: Machine, report: BackupReport) -> None:
    data = {one: stored for one, stored in machine.vault.chunks.items() if stored[5] == 0}
    assert len(data) > 1
    others = list(data.values())
    # Each of them, the last one too: that may be the one with all the small files.
    for one, other in zip(data, [*others[1:], others[0]], strict=True):
        machine.vault.chunks[one] = other


def shorten(machine: Machine, report: BackupReport) -> None:
    for one, stored in list(machine.vault.chunks.items()):
        if stored[5] == 0:
            machine.vault.chunks[one] = stored[: len(stored) // 2]


def lose_tree(machine: Machine, report: BackupReport) -> None:
    del machine.vault.chunks[report.root.reference.id]


def flip_tree(machine: Machine, report: BackupReport) -> None:
    stored = machine.vault.chunks[report.root.reference.id]
    machine.vault.chunks[report.root.reference.id] = stored[:-1] + bytes([stored[-1] ^ 1])


@pytest.mark.parametrize("harm", [lose, flip, swap, shorten, lose_tree, flip_tree])
def test_a_vault_that_gives_other_bytes_is_found_by_drill_and_sample(
    machine: Machine, harm: Callable[[Machine, BackupReport], None]
) -> None:
    report = machine.back_up()
    assert sample(machine, report.root).wrong == []
    harm(machine, report)
    assert drill(machine, report).wrong
    assert not (machine.home / "scratch").exists()
    assert any(sample(machine, report.root, seed=seed).wrong for seed in range(5))


def sample(machine: Machine, root: Root, seed: int = 1) -> Proved:
    return decode_sample(
        root,
        vault=machine.vault,
        secret=WHO.secret,
        seed=random.Random(seed),
        patience_s=5.0,
    )


def test_a_sample_costs_the_same_for_a_large_tree(machine: Machine) -> None:
    many = machine.files / "many"
    many.mkdir()
    for number in range(1_500):
        (many / f"{number:05}").write_bytes(b"%d" % number)
    report = machine.back_up()
    asked: list[str] = []
    machine.vault.lose = asked.append
    proved = sample(machine, report.root)
    assert proved.wrong == []
    assert proved.compared == proved.files > 0
    assert len(asked) < 40


def test_the_newest_files_are_among_those_that_are_restored(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.files / "folder3" / "deep" / "file07"
    os.utime(path, ns=(4_000_000_000 * 10**9, 4_000_000_000 * 10**9))
    report = machine.back_up()
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)

    def picked(root: Root) -> set[bytes]:
        picks = pick(reader, root, count=9, max_bytes=10**9, canaries=[], seed=random.Random(3))
        assert len({one.path for one in picks.files}) == len(picks.files) == 9
        return {one.path for one in picks.files}

    assert bytes(path).lstrip(b"/") in picked(report.root)
    # Of a large tree some leaves are read; what is chosen is still of the tree.
    monkeypatch.setattr(picking, "WHOLE_ENTRIES", 10)
    everything = {entry.name for _, entry in reader.entries(report.root)}
    assert {one.rpartition(b"/")[2] for one in picked(report.root)} <= everything


def test_random_ways_reach_all_leaves_in_time(machine: Machine) -> None:
    many = machine.files / "many"
    many.mkdir()
    for number in range(2_000):
        (many / f"{number:05}").touch()
    root = machine.back_up().root
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    seed = random.Random(5)
    seen = {entry.name for _ in range(16) for _, entry in some_entries(reader, root, 4, seed)}
    assert len(seen) > root.entries * 0.9


def test_a_small_budget_is_kept_and_one_file_is_restored_anyway(machine: Machine) -> None:
    report = machine.back_up(machine.files / "big", machine.files / "sparse")
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    picks = pick(reader, report.root, count=9, max_bytes=100, canaries=[], seed=random.Random(3))
    assert [one.entry.name for one in picks.files] == [b"sparse"]


def test_a_drill_without_room_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    report = machine.back_up()
    usage = shutil.disk_usage(machine.home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(SteadError) as refused:
        drill(machine, report)
    assert refused.value.code is Code.STORE_FULL
    assert not (machine.home / "scratch").exists()


def test_a_sample_does_not_fetch_a_huge_file_whose_extents_lie_in_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.vault.content.INLINE_EXTENTS", 1)
    monkeypatch.setattr("protocol.vault.content.LIST_EXTENTS", 2)
    monkeypatch.setattr("agent.backup.drill.perform.LARGEST_SAMPLED", 1_000_000)
    machine = Machine(tmp_path)
    (machine.files / "huge").write_bytes(random.Random(5).randbytes(6_000_000))
    root = machine.back_up().root
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    assert [entry.depth > 0 for _, entry in reader.entries(root) if entry.name == b"huge"] == [True]
    proved = decode_sample(
        root, vault=machine.vault, secret=WHO.secret, seed=random.Random(1), patience_s=5.0
    )
    assert (proved.files, proved.wrong) == (0, [])
