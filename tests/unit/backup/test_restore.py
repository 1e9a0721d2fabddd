"""What a restore writes, leaves alone and reports."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backup.cut.read import data_ranges
from agent.backup.restore.durable import NotDurableError, Written
from agent.backup.restore.placed import TargetFullError
from protocol.vault.chunk import ChunkId, Opener
from protocol.vault.reader import Inner, TreeReader
from tests.unit.backup.machine import WHO, Machine
from tests.unit.backup.trees import picture


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    chance = random.Random(4)
    (made.files / "sub").mkdir()
    for number in range(60):
        (made.files / "sub" / f"file{number:02}").write_bytes(chance.randbytes(20_000))
    (made.files / "big").write_bytes(chance.randbytes(9_000_000))
    (made.files / "small").write_bytes(b"small")
    return made


def test_a_part_of_a_restore_point_arrives_under_its_own_name(machine: Machine) -> None:
    report = machine.back_up()
    path = bytes(machine.files / "sub").lstrip(b"/")
    restored, done = machine.restore(report.root, path)
    assert restored.name == "sub"
    assert (done.files, done.others) == (60, 1)
    assert picture(restored) == picture(machine.files / "sub")
    one, done = machine.restore(report.root, path + b"/file07")
    assert done.files == 1
    assert one.read_bytes() == (machine.files / "sub" / "file07").read_bytes()


def test_what_is_there_is_left_and_reported(machine: Machine) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    (target / "files").mkdir(parents=True)
    (target / "files" / "small").write_bytes(b"mine")
    _, done = machine.restore(report.root, target=target)
    assert (target / "files" / "small").read_bytes() == b"mine"
    assert [one.path for one in done.failed.kept] == [b"files/small"]
    assert done.files == 61


def test_overwriting_replaces_what_is_there(machine: Machine) -> None:
    os.link(machine.files / "small", machine.files / "small-too")
    (machine.files / "link").symlink_to("small")
    report = machine.back_up()
    restored, _ = machine.restore(report.root)
    (restored / "small").unlink()
    (restored / "small").write_bytes(b"mine")
    (restored / "big").write_bytes(b"mine")
    (restored / "link").unlink()
    (restored / "link").symlink_to("/etc/passwd")
    _, done = machine.restore(report.root, target=restored.parent, overwrite=True)
    assert done.failed.kept == []
    assert picture(restored) == picture(machine.files)


def test_a_planted_link_leads_nowhere(machine: Machine) -> None:
    report = machine.back_up()
    target, outside = machine.home / "target", machine.home / "outside"
    (target / "files").mkdir(parents=True)
    outside.mkdir()
    (target / "files" / "sub").symlink_to(outside)
    (target / "files" / "small").symlink_to(outside / "small")
    for overwrite in (False, True):
        _, done = machine.restore(report.root, target=target, overwrite=overwrite)
        assert done.failed.count >= 60
        assert list(outside.iterdir()) == []
    assert (target / "files" / "small").read_bytes() == b"small"


def test_a_damaged_chunk_costs_the_files_that_use_it(machine: Machine) -> None:
    report = machine.back_up()
    sizes = {
        len(stored): identity for identity, stored in machine.vault.chunks.items() if stored[5] == 0
    }
    victim: ChunkId = sizes[max(sizes)]
    stored = bytearray(machine.vault.chunks[victim])
    stored[len(stored) // 2] ^= 1
    machine.vault.chunks[victim] = bytes(stored)
    restored, done = machine.restore(report.root)
    assert [one.path for one in done.failed.kept] == [b"files/big"]
    assert "damaged" in done.failed.kept[0].reason
    assert not (restored / "big").exists()
    assert done.files == 61


def test_a_missing_chunk_costs_the_files_that_use_it(machine: Machine) -> None:
    report = machine.back_up()
    data = [identity for identity, stored in machine.vault.chunks.items() if stored[5] == 0]
    lengths = {identity: len(machine.vault.chunks[identity]) for identity in data}
    del machine.vault.chunks[max(data, key=lambda one: lengths[one])]
    _, done = machine.restore(report.root)
    assert [one.path for one in done.failed.kept] == [b"files/big"]
    assert done.files == 61


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("not run: mounting needs root")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)])
    if made.returncode:
        pytest.skip("not run: this system does not let a test mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_ends_the_restore_and_leaves_no_half_file(
    machine: Machine, small_disk: Path
) -> None:
    report = machine.back_up()
    with pytest.raises(TargetFullError, match=r"files of .* bytes were written"):
        machine.restore(report.root, target=small_disk)
    for path in (small_disk / "files").rglob("*"):
        if path.is_file():
            original = machine.files / path.relative_to(small_disk / "files")
            assert path.read_bytes() == original.read_bytes()


def test_a_file_of_many_chunks_survives(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with (machine.files / "sparse").open("wb") as file:
        # More extents than a leaf keeps: lists of extents.
        for number in range(400):
            file.seek(number * 1_000_000)
            file.write(b"%d" % number * 1000)
    report = machine.back_up()
    restored, done = machine.restore(report.root)
    assert done.failed.kept == []
    assert picture(restored) == picture(machine.files)


def parts_of(path: Path) -> list[tuple[int, int, bool]]:
    with path.open("rb") as file:
        return list(data_ranges(file.fileno(), path.stat()))


def test_a_big_sparse_file_is_written_past_the_cache_and_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    with (machine.files / "disk").open("wb") as file:
        for place in (4096, 9_000_000, 30_000_001):
            file.seek(place)
            file.write(random.Random(place).randbytes(5_000_003))
        file.truncate(60_000_000)
    direct: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, place: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            direct.append(len(data))
        return real(fd, data, place)

    report = machine.back_up()
    monkeypatch.setattr(os, "pwrite", pwrite)
    restored, done = machine.restore(report.root)
    assert done.files == 1
    assert picture(restored) == picture(machine.files)
    assert sum(direct) >= 3 * 4_900_000
    # Not st_blocks: it also counts what the file system needs to find the rest.
    assert parts_of(restored / "disk") == parts_of(machine.files / "disk")


def test_a_link_that_takes_the_place_of_a_pipe_is_not_followed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(machine.files / "pipe")
    (machine.files / "pipe").chmod(0o777)
    report = machine.back_up()
    victim = machine.home / "victim"
    victim.write_bytes(b"theirs")
    victim.chmod(0o600)
    mknod = os.mknod

    def swapped(name: bytes, mode: int, device: int, *, dir_fd: int) -> None:
        mknod(name, mode, device, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        os.symlink(bytes(victim), name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", swapped)
    _, done = machine.restore(report.root)
    assert victim.stat().st_mode & 0o7777 == 0o600
    assert [one.path for one in done.failed.kept] == [b"files/pipe"]


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("which", [0, -1])
def test_a_lost_leaf_costs_what_is_in_it_and_nothing_else(
    tmp_path: Path, which: int, *, is_there: bool
) -> None:
    machine = Machine(tmp_path)
    for number in range(3_000):
        (machine.files / f"file{number}").write_bytes(b"%d" % number)
    report = machine.back_up()
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    inner = next(iter(reader.nodes([report.root])))[1]
    assert isinstance(inner, Inner)
    lost = inner.items[which].node
    if is_there:
        stored = bytearray(machine.vault.chunks[lost.reference.id])
        stored[-1] ^= 1
        machine.vault.chunks[lost.reference.id] = bytes(stored)
    else:
        del machine.vault.chunks[lost.reference.id]
    target = tmp_path / "target"
    target.mkdir()
    _, done = machine.restore(report.root, b"", target)
    assert done.files == 3_000 - lost.files
    assert len(done.failed.kept) == 1
    assert str(lost.entries) in done.failed.kept[0].reason


def test_what_was_written_is_made_durable_once_for_each_file_system(
    machine: Machine,
) -> None:
    report = machine.back_up()
    synced: list[int] = []
    target = machine.home / "target"
    target.mkdir()
    with Written(lambda fd: synced.append(os.fstat(fd).st_dev)) as written:
        machine.restoring(report.root, target, written=written).run()
        assert synced == []
        written.make_durable()
    assert synced == [target.stat().st_dev]
    synced.clear()
    with Written(lambda fd: synced.append(fd)) as written:
        machine.restoring(report.root, target, written=written).preview()
        written.make_durable()
    assert synced == []


def test_a_disk_that_fails_to_take_it_fails_the_restore(tmp_path: Path) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    fd = os.open(tmp_path, os.O_RDONLY)
    with Written(fail) as written:
        written.note(fd)
        os.close(fd)
        with pytest.raises(NotDurableError, match=r"may not be on the disk: input/output error"):
            written.make_durable()
    with Written() as written:
        fd = os.open(tmp_path, os.O_RDONLY)
        written.note(fd)
        os.close(fd)
        written.make_durable()
