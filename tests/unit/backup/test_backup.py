"""What a backup reads, sends and reports."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import cast

import pytest

from agent.backup.select.places import normalise
from agent.backup.select.pseudo import pseudo_devices, read_pseudo_devices
from agent.backup.select.walk import Walk
from agent.backup.send.vault import LinkLostError, Session
from agent.backup.skipped import SkippedList
from agent.backup.tree.place import Memory
from protocol.errors import Code, InvalidError, NotFoundError, SteadError, UnavailableError
from tests.altered import flipped
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    chance = random.Random(3)
    for folder in range(12):
        directory = made.files / f"folder{folder:02}"
        directory.mkdir()
        for number in range(100):
            (directory / f"file{number:03}").write_bytes(chance.randbytes(chance.randint(0, 9000)))
    (made.files / "big").write_bytes(chance.randbytes(6_000_000))
    return made


def old(machine: Machine) -> None:
    """Wait until what was written counts as older than what comes: a tick of the clock."""
    del machine
    time.sleep(0.02)


def test_an_unchanged_second_backup_reads_and_sends_nothing(machine: Machine) -> None:
    old(machine)
    first = machine.back_up()
    second = machine.back_up()
    assert first.is_complete
    assert second.is_complete
    assert second.counts.read_files == 0
    assert second.counts.reused_files == second.root.files == first.root.files == 1201
    # The folders above are everybody's: their times may have changed.
    assert second.new_chunks <= 3


def test_an_edit_reads_one_file_and_gives_the_tree_of_a_full_backup(machine: Machine) -> None:
    old(machine)
    first = machine.back_up()
    (machine.files / "folder03" / "file007").write_bytes(b"x" * 500)
    (machine.files / "folder05" / "file050").unlink()
    (machine.files / "folder05" / "file0505").write_bytes(b"new")
    second = machine.back_up()
    assert second.counts.read_files == 2
    assert second.root.files == first.root.files
    fresh = Machine(machine.home, machine.vault)
    fresh.memory = Memory(machine.home / "other")
    assert fresh.back_up().root.entries == second.root.entries
    restored, _ = machine.restore(second.root)
    assert picture(restored) == picture(machine.files)


def test_an_edit_in_a_big_file_sends_the_chunks_around_it_only(machine: Machine) -> None:
    old(machine)
    machine.back_up()
    with (machine.files / "big").open("r+b") as file:
        file.seek(3_000_000)
        file.write(b"edited")
    second = machine.back_up()
    assert second.counts.read_files == 1
    assert second.new_bytes < 4_300_000
    restored, _ = machine.restore(second.root)
    assert picture(restored) == picture(machine.files)


def test_files_with_fresh_time_stamps_are_read_again(machine: Machine) -> None:
    machine.back_up(racy_ns=3_600_000_000_000)
    again = machine.back_up()
    assert again.counts.read_files == 1201
    # The folders above are everybody's: their times may have changed.
    assert again.new_chunks <= 3


def test_a_file_changed_behind_its_time_stamps_is_noticed_by_sampling(machine: Machine) -> None:
    old(machine)
    machine.back_up()
    names = sorted(machine.vault.chunks)
    # The same seems to have happened to every file when the vault holds other content.
    for name in names:
        if machine.vault.chunks[name][5] == 0:
            machine.vault.chunks[name] = flipped(machine.vault.chunks[name])
    report = machine.back_up()
    assert report.unsound
    assert not report.is_complete
    assert not machine.memory.state.exists()


def test_a_chunk_that_the_vault_finds_damaged_does_not_end_a_backup(machine: Machine) -> None:
    for number in range(4_000):
        (machine.files / f"many{number}").write_bytes(b"%d" % number * 200)
    old(machine)
    machine.back_up()

    def damaged(_ids: object) -> Iterator[bytes]:
        raise SteadError("a chunk is damaged", code=Code.CHUNK_DAMAGED)

    machine.vault.get = damaged
    report = machine.back_up()
    assert report.unsound
    assert not report.is_complete
    assert len(machine.vault.points) == 2


@pytest.mark.parametrize(
    ("file", "where"),
    [("state", 20), ("state", -30), ("nodes.1", 200), ("nodes.1", 5_000), ("nodes.1", -30)],
)
def test_a_damaged_state_file_costs_time_and_nothing_else(
    machine: Machine, file: str, where: int
) -> None:
    old(machine)
    first = machine.back_up()
    path = machine.memory.path / file
    data = bytearray(path.read_bytes())
    data[where] ^= 255
    path.write_bytes(data)
    second = machine.back_up()
    assert second.root.entries == first.root.entries
    restored, _ = machine.restore(second.root)
    assert picture(restored) == picture(machine.files)


def test_the_state_of_another_restore_point_is_ignored(machine: Machine) -> None:
    old(machine)
    machine.back_up()
    state = machine.memory.state.read_bytes()
    machine.back_up()
    machine.memory.state.write_bytes(state)
    assert machine.back_up().counts.read_files == 1201


def test_a_missing_path_is_reported_and_the_rest_backed_up(machine: Machine) -> None:
    report = machine.back_up(machine.files / "folder01", machine.files / "nothing" / "there")
    assert not report.is_complete
    assert [one.path for one in report.skipped.kept] == [
        bytes(machine.files / "nothing" / "there").lstrip(b"/")
    ]
    assert report.root.files == 100


def test_nothing_but_missing_paths_fails(machine: Machine) -> None:
    with pytest.raises(NotFoundError, match="none of the paths"):
        machine.back_up(machine.files / "nothing")
    assert machine.vault.points == []


def test_a_path_through_a_link_is_not_followed(machine: Machine) -> None:
    (machine.files / "link").symlink_to("folder01")
    report = machine.back_up(machine.files / "link" / "file001", machine.files / "folder02")
    assert "symbolic link" in report.skipped.kept[0].reason
    assert report.root.files == 100


def test_a_lost_link_is_taken_up_and_nothing_acknowledged_is_sent_again(machine: Machine) -> None:
    steps = {"put": 0}

    def lose(step: str) -> None:
        steps[step] = steps.get(step, 0) + 1
        if step == "put" and steps["put"] in (3, 7):
            raise LinkLostError("cut")
        if step == "has" and steps["has"] == 4:
            raise LinkLostError("cut")

    machine.vault.lose = lose
    report = machine.back_up()
    assert report.lost_links >= 2
    restored, done = machine.restore(report.root)
    assert not done.failed.count
    assert picture(restored) == picture(machine.files)


def test_a_session_that_ran_out_is_begun_again_with_the_same_point(machine: Machine) -> None:
    seen: list[str] = []

    def lose(step: str) -> None:
        seen.append(step)
        if seen.count("put") == 2 and step == "put":
            raise SteadError("ran out", code=Code.SESSION_LOST)

    machine.vault.lose = lose
    report = machine.back_up()
    assert len(machine.vault.points) == 1
    assert machine.vault.points[0][0].id == report.point


def test_a_lost_answer_to_the_commit_is_asked_for_again(machine: Machine) -> None:
    left = [2]

    def lose(step: str) -> None:
        if step == "committed" and left[0]:
            left[0] -= 1
            raise LinkLostError("cut")

    machine.vault.lose = lose
    machine.back_up()
    assert len(machine.vault.points) == 1


def test_a_run_that_ended_in_the_middle_is_taken_up_under_its_id(machine: Machine) -> None:
    count = [0]

    def lose(step: str) -> None:
        count[0] += step == "put"
        if count[0] > 3:
            raise SteadError("refused", code=Code.STORE_FULL)

    machine.vault.lose = lose
    with pytest.raises(SteadError, match="refused"):
        machine.back_up()
    held = set(machine.vault.chunks)
    begun = machine.vault._open
    machine.vault.lose = lambda _step: None
    sent_before = machine.vault.received
    report = machine.back_up()
    assert "vs_" + report.point.removeprefix("rp_") == begun
    assert machine.vault.received - sent_before == len(set(machine.vault.chunks) - held)


def test_a_commit_whose_run_died_before_hearing_of_it_counts(machine: Machine) -> None:
    old(machine)

    def lose(step: str) -> None:
        if step == "committed":
            raise KeyboardInterrupt

    machine.vault.lose = lose
    with pytest.raises(KeyboardInterrupt):
        machine.back_up()
    machine.vault.lose = lambda _step: None
    report = machine.back_up()
    assert len(machine.vault.points) == 2
    assert report.counts.read_files == 0
    assert report.point == machine.vault.points[1][0].id


def test_a_commit_that_meets_another_record_is_made_under_a_new_id(machine: Machine) -> None:
    taken: list[str] = []
    commit = machine.vault.commit

    def refuse_the_first(session: Session, record: bytes) -> datetime:
        if session.id in taken or not taken:
            taken.append(session.id)
            raise SteadError("exists with another record", code=Code.ALREADY_EXISTS)
        return cast("datetime", commit(session, record))

    machine.vault.commit = refuse_the_first
    report = machine.back_up()
    # The folders above may get other times from other programs, so not the roots are compared.
    again = machine.back_up()
    assert again.counts.read_files == 0
    assert (again.root.entries, again.root.bytes) == (report.root.entries, report.root.bytes)
    assert machine.vault.points[0][0].id == report.point
    assert len(taken) == 1
    assert report.point != taken[0].replace("vs_", "rp_")


def test_a_commit_that_never_gets_through_ends_the_backup(machine: Machine) -> None:
    def refuse(session: Session, record: bytes) -> datetime:
        raise SteadError("exists with another record", code=Code.ALREADY_EXISTS)

    machine.vault.commit = refuse
    with pytest.raises(SteadError) as caught:
        machine.back_up()
    assert caught.value.code is Code.ALREADY_EXISTS


def test_a_controller_that_stays_away_ends_the_backup_with_advice(machine: Machine) -> None:
    def lose(step: str) -> None:
        raise LinkLostError("nobody there")

    machine.vault.lose = lose
    with pytest.raises(UnavailableError, match="run the backup again"):
        machine.back_up(patience_s=0.1)


def test_chunks_that_the_vault_lost_are_read_and_sent_again(machine: Machine) -> None:
    old(machine)
    machine.back_up()
    machine.vault.chunks.clear()
    (machine.files / "folder00" / "file000").write_bytes(b"edited")
    report = machine.back_up()
    restored, done = machine.restore(report.root)
    assert not done.failed.count
    assert picture(restored) == picture(machine.files)


def test_only_one_backup_runs_at_a_time(machine: Machine) -> None:
    with machine.memory.locked(), pytest.raises(SteadError) as refused:
        machine.back_up()
    assert refused.value.code is Code.LOCKED


def test_the_own_cache_is_left_out_by_rule(machine: Machine) -> None:
    report = machine.back_up(machine.home)
    assert report.is_complete
    assert [one.reason for one in report.skipped.kept] == ["the agent's own cache"]


def test_an_open_directory_is_all_that_is_left_behind(machine: Machine) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    report = machine.back_up()
    machine.back_up()
    machine.restore(report.root)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_deep_tree_needs_few_descriptors(machine: Machine) -> None:
    fd = os.open(machine.files, os.O_RDONLY)
    for _ in range(700):
        os.mkdir(b"d", dir_fd=fd)
        below = os.open(b"d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open(b"leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
    report = machine.back_up()
    assert report.is_complete
    assert report.root.files == 1202


def test_a_folder_of_many_files_is_visited_in_slices(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.backup.select.walk.SLICE", 16)
    old(machine)
    first = machine.back_up()
    assert first.root.files == 1201
    assert machine.back_up().counts.read_files == 0
    restored, _ = machine.restore(first.root)
    assert picture(restored) == picture(machine.files)


def test_paths_are_normalised() -> None:
    assert normalise([b"/a/b", b"/a", b"/a-b", b"/c/../d/"]) == (b"a", b"a-b", b"d")
    assert normalise([b"/"]) == (b"",)
    with pytest.raises(InvalidError, match="absolute"):
        normalise([b"relative"])


def test_a_named_path_below_a_pseudo_file_system_is_reached() -> None:
    shm = Path("/dev/shm")
    pseudo = read_pseudo_devices()
    if not shm.is_dir() or Path("/dev").stat().st_dev not in pseudo:
        pytest.skip("not run: /dev/shm is not below a pseudo file system here")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        (Path(folder) / "file").write_bytes(b"kept")
        skipped = SkippedList()
        walk = Walk([folder.encode().lstrip(b"/")], skipped, pseudo=pseudo)
        names = []
        for listing in walk:
            names += [row[0] for row in listing.rows]
            os.close(listing.fd)
        assert walk.found_paths == 1
        assert names[-1] == b"file"
        assert not skipped.count


def test_pseudo_file_systems_are_told_from_storage() -> None:
    text = b"""22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
23 28 0:22 / /proc rw - proc proc rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
"""
    assert pseudo_devices(text) == {os.makedev(0, 21), os.makedev(0, 22)}


def test_a_second_backup_says_how_long_it_will_take(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.backup.run._PROGRESS_S", 0.0)
    machine.back_up()
    assert not any("eta" in one for one in machine.said)
    machine.memory.state.unlink()
    machine.said.clear()
    machine.back_up()
    left = [one["eta"] for one in machine.said if "eta" in one]
    assert left
    assert all(eta >= 0 for eta in left)


def test_attributes_that_cannot_be_kept_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.files / "folder00" / "file000"
    os.setxattr(path, "user.many", b"x" * 100)
    monkeypatch.setattr("agent.metadata.attributes.MAX_XATTR_BYTES", 99)
    report = machine.back_up()
    assert not report.is_complete
    assert [one.path for one in report.skipped.kept] == [bytes(path).lstrip(b"/")]
    assert "user.many" in report.skipped.kept[0].reason
