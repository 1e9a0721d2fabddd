"""Restoring where something is already, and what a preview says of it."""

from __future__ import annotations

import os

from agent.backup.restore.fresh import UNFINISHED
from agent.backup.restore.leftover import temporary_names
from tests.unit.backup.machine import Machine
from tests.unit.backup.test_restore import machine
from tests.unit.backup.trees import picture

__all__ = ["machine"]


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


def test_the_leftovers_of_a_running_restore_stay(machine: Machine) -> None:
    report = machine.back_up()
    target = machine.home / "target"
    (target / "files").mkdir(parents=True)
    mine = target / "files" / os.fsdecode(next(temporary_names()))
    mine.write_bytes(b"being written")
    machine.restore(report.root, target=target)
    assert mine.exists()


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
