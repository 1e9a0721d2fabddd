"""What a restore writes, leaves alone and reports."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.backup.belonging import Owners
from agent.backup.durable import NotDurableError, Written
from agent.backup.fresh import UNFINISHED
from agent.backup.leftover import temporary_names
from agent.backup.placed import TargetFullError
from agent.metadata.posix_flags import IMMUTABLE, read_flags, write_flags
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
    assert (restored / "disk").stat().st_blocks <= (machine.files / "disk").stat().st_blocks


def test_times_that_no_64_bits_can_hold_survive(machine: Machine) -> None:
    far = 15_000_000_000 * 10**9
    for name in ("inline", "streamed", "big"):
        path = machine.files / name
        path.write_bytes(b"x" * {"inline": 1, "streamed": 9_000, "big": 700_000}[name])
        os.utime(path, ns=(far, far))
    (machine.files / "folder").mkdir()
    os.utime(machine.files / "folder", ns=(far, far))
    if (machine.files / "big").stat().st_mtime_ns != far:
        pytest.skip("not run: this file system keeps no times that far away")
    for _ in range(2):
        report = machine.back_up()
        assert report.is_complete
        target, _ = machine.restore(report.root)
        for name in ("inline", "streamed", "big", "folder"):
            assert (target / name).stat().st_mtime_ns == far


def test_what_cannot_get_its_owner_gets_no_right_to_act_as_another(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.files / "tool").write_bytes(b"x")
    (machine.files / "tool").chmod(0o6755)
    os.mkfifo(machine.files / "pipe")
    report = machine.back_up()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "chown", refuse)
    restored, done = machine.restore(report.root)
    assert (restored / "tool").stat().st_mode & 0o7777 == 0o755
    assert (restored / "pipe").is_fifo()
    assert not done.failed.count


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


def test_a_restore_that_was_cut_off_goes_on_with_what_is_missing(machine: Machine) -> None:
    os.link(machine.files / "big", machine.files / "big-too")
    (machine.files / "link").symlink_to("small")
    report = machine.back_up()
    target = machine.home / "cut-off"
    restored, _ = machine.restore(report.root, target=target)
    (restored / "sub" / "file07").unlink()
    (restored / "sub" / ".stead-restore-4194305-77-7").write_bytes(b"half of it")
    for overwrite in (False, True):
        _, done = machine.restore(report.root, target=target, overwrite=overwrite)
        assert done.failed.count == 0
        assert done.files == (0 if overwrite else 1)
        assert done.same == 64 - done.files
    assert picture(restored) == picture(machine.files)


def test_only_what_differs_is_written(machine: Machine) -> None:
    report = machine.back_up()
    restored, _ = machine.restore(report.root)
    before = {path: path.stat().st_ino for path in restored.rglob("*") if path.is_file()}
    (restored / "small").write_bytes(b"other")
    (restored / "sub" / "file01").chmod(0o600)
    os.setxattr(restored / "sub" / "file02", "user.mine", b"x")
    _, done = machine.restore(report.root, target=restored.parent, overwrite=True)
    assert (done.files, done.failed.count) == (3, 0)
    changed = {path.name for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {"small", "file01", "file02"}
    assert picture(restored) == picture(machine.files)


def test_a_preview_says_what_the_restore_then_does(machine: Machine) -> None:
    report = machine.back_up()
    restored, _ = machine.restore(report.root)
    (restored / "small").write_bytes(b"other")
    (restored / "sub" / "file01").unlink()
    here = picture(restored)
    found = machine.preview(report.root, restored.parent)
    assert picture(restored) == here
    assert (found.create, found.overwrite, found.same) == (1, 1, 60)
    assert found.size == 20_005
    _, done = machine.restore(report.root, target=restored.parent, overwrite=True)
    assert (done.files, done.bytes, done.same) == (2, 20_005, 60)


def test_a_preview_names_the_folders_that_would_get_other_attributes(machine: Machine) -> None:
    for name in ("mode", "time", "mine", "theirs", "same"):
        (machine.files / name).mkdir()
        os.setxattr(machine.files / name, "user.theirs", b"1")
    report = machine.back_up()
    restored, _ = machine.restore(report.root)
    (restored / "mode").chmod(0o711)
    os.utime(restored / "time", ns=(5, 5))
    os.setxattr(restored / "mine", "user.mine", b"1")
    os.removexattr(restored / "theirs", "user.theirs")
    found = machine.preview(report.root, restored.parent)
    assert (found.create, found.overwrite, found.attributes, found.size) == (0, 0, 4, 0)
    assert {path.rpartition(b"/")[2] for path, _ in found.changes} == {
        b"mode", b"time", b"mine", b"theirs"
    }  # fmt: skip
    assert "4 folders to give other attributes" in str(found)
    machine.restore(report.root, target=restored.parent, overwrite=True)
    assert picture(restored) == picture(machine.files)
    assert machine.preview(report.root, restored.parent).attributes == 0


def test_a_file_in_the_way_of_a_folder_is_named_by_the_preview(machine: Machine) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    (target / "files").mkdir(parents=True)
    (target / "files" / "sub").write_bytes(b"mine")
    restore = machine.restoring(report.root, target)
    assert restore.preview().overwrite == 0
    left = [one.path for one in restore.done.failed.kept]
    assert (left[0], len(left)) == (b"files/sub", 61)


def test_what_is_in_the_way_is_left_as_the_preview_says(machine: Machine) -> None:
    report = machine.back_up()
    restored, _ = machine.restore(report.root)
    (restored / "small").unlink()
    (restored / "small" / "mine").mkdir(parents=True)
    (restored / "sub").rename(restored / "moved")
    (restored / "sub").symlink_to("moved")
    found = machine.restoring(report.root, restored.parent, overwrite=True)
    seen = found.preview()
    assert (seen.create, seen.overwrite, seen.same) == (0, 0, 1)
    done = machine.restoring(report.root, restored.parent, overwrite=True).run()
    assert (done.files, done.same) == (0, 1)
    left = {one.path for one in done.failed.kept}
    assert left == {one.path for one in found.done.failed.kept}
    assert {b"files/small", b"files/sub", b"files/sub/file00"} <= left
    assert (restored / "small" / "mine").is_dir()


def test_folders_of_a_restore_that_was_killed_get_their_modes_and_others_keep_theirs(
    machine: Machine,
) -> None:
    (machine.files / "sub").chmod(0o750)
    (machine.files / "other").mkdir(0o755)
    report = machine.back_up()
    target = machine.home / "target"
    (target / "files" / "sub").mkdir(parents=True)
    (target / "files" / "sub").chmod(UNFINISHED | 0o2000)
    (target / "files" / "other").mkdir(0o700)
    _, done = machine.restore(report.root, target=target)
    assert (target / "files" / "sub").stat().st_mode & 0o7777 == 0o750
    assert (target / "files" / "other").stat().st_mode & 0o7777 == 0o700
    assert [one.path for one in done.warnings.kept if b"other" in one.path] == [b"files/other"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: becoming an ordinary user needs root")
def test_an_ordinary_user_gets_the_attributes_of_what_he_may_not_write(tmp_path: Path) -> None:
    script = """if True:
        import os, sys
        from pathlib import Path
        from agent.backup.belonging import Belonging, Owners
        from agent.backup.placer import Placer
        from protocol.vault.entry import Entry, Owner
        os.setgid(65534); os.setuid(65534)
        owner = Owner(65534, 65534, "", "")
        entry = Entry(b"f", 0o100444, owner, 1, 1, (), b"x", xattrs=((b"user.a", b"1"),))
        belonging = Belonging(Owners.NUMBER)
        options = dict(overwrite=False, flags=False, content_of=lambda _: ())
        with Placer(os.fsencode(sys.argv[1]), belonging, **options) as placer:
            file = placer.create(b"", entry)
            assert file is not None and placer.write(file, [b"x"])
            placer.close(file)
        assert placer.done.warnings.count == 0, placer.done.warnings
    """
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o5 != 0o5:
            parent.chmod(parent.stat().st_mode | 0o5)
    subprocess.run(
        [sys.executable, "-c", script, tmp_path], check=True, cwd=Path(__file__).parents[3]
    )
    assert os.getxattr(tmp_path / "f", "user.a") == b"1"


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


def test_the_leftovers_of_a_running_restore_stay(machine: Machine) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    (target / "files").mkdir(parents=True)
    mine = target / "files" / os.fsdecode(next(temporary_names()))
    mine.write_bytes(b"being written")
    machine.restore(report.root, target=target)
    assert mine.exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: foreign owners need root")
def test_owners_go_by_name_before_number(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(machine.files / "small", 2, 3)
    (machine.files / "small").chmod(0o4755)
    names = {"bin": 1_202, "sys": 1_303}
    monkeypatch.setattr(
        "agent.backup.owners.pwd.getpwuid", lambda uid: SimpleNamespace(pw_name="bin")
    )
    monkeypatch.setattr(
        "agent.backup.owners.grp.getgrgid", lambda gid: SimpleNamespace(gr_name="sys")
    )
    report = machine.back_up()
    monkeypatch.setattr(
        "agent.backup.belonging.pwd.getpwnam", lambda name: SimpleNamespace(pw_uid=names[name])
    )
    monkeypatch.setattr(
        "agent.backup.belonging.grp.getgrnam", lambda name: SimpleNamespace(gr_gid=names[name])
    )
    for owners, expected, mode in (
        (Owners.NAME, (1_202, 1_303), 0o4755),
        (Owners.NUMBER, (2, 3), 0o4755),
        (Owners.NONE, (os.geteuid(), os.getegid()), 0o755),
    ):
        restored, _ = machine.restore(report.root, owners=owners)
        found = (restored / "small").stat()
        assert (found.st_uid, found.st_gid) == expected
        assert found.st_mode & 0o7777 == mode
        _, done = machine.restore(
            report.root, target=restored.parent, overwrite=True, owners=owners
        )
        assert (done.files, done.same) == (0, 62)
    names.clear()
    restored, _ = machine.restore(report.root)
    assert (restored / "small").stat().st_uid == 2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: flags need root")
def test_flags_are_set_last_and_give_way_to_a_restore_in_place(machine: Machine) -> None:
    held = [machine.files / "small", machine.files / "sub" / "file03", machine.files / "sub"]
    targets = []
    try:
        for path in held:
            change_flags(path, IMMUTABLE)
        if not all(flags_at(path) == IMMUTABLE for path in held):
            pytest.skip("not run: this file system has no flags")
        report = machine.back_up()
        restored, done = machine.restore(report.root, flags=True)
        targets = [restored / path.relative_to(machine.files) for path in held]
        assert done.failed.count == 0
        assert [flags_at(path) for path in targets] == [IMMUTABLE] * 3
        change_flags(targets[0], 0)
        targets[0].write_bytes(b"other")
        change_flags(targets[0], IMMUTABLE)
        _, refused = machine.restore(report.root, target=restored.parent, overwrite=True)
        assert [one.path for one in refused.failed.kept] == [b"files/small"]
        _, done = machine.restore(report.root, target=restored.parent, overwrite=True, flags=True)
        assert (done.failed.count, done.files) == (0, 1)
        assert [flags_at(path) for path in targets] == [IMMUTABLE] * 3
        assert picture(restored) == picture(machine.files)
    finally:
        for path in [*held, *targets]:
            change_flags(path, 0)


def flags_at(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_flags(fd)
    finally:
        os.close(fd)


def change_flags(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            write_flags(fd, flags)
    finally:
        os.close(fd)


def test_verifying_finds_what_kept_its_size_and_time(machine: Machine) -> None:
    with (machine.files / "sparse").open("wb") as file:
        file.truncate(40_000_000)
        file.seek(20_000_000)
        file.write(b"x" * 600_000)
    report = machine.back_up()
    restored, _ = machine.restore(report.root)
    damaged = [restored / "small", restored / "sub" / "file09", restored / "big"]
    damaged.append(restored / "sparse")
    for path in damaged:
        found = path.stat()
        with path.open("r+b") as file:
            file.seek(found.st_size // 2)
            file.write(b"!")
        os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))
    _, done = machine.restore(report.root, target=restored.parent, overwrite=True)
    assert done.files == 0
    _, left = machine.restore(report.root, target=restored.parent, verify=True)
    assert left.failed.count == 4
    _, done = machine.restore(report.root, target=restored.parent, overwrite=True, verify=True)
    assert (done.files, done.same, done.failed.count) == (4, 59, 0)
    assert picture(restored) == picture(machine.files)
