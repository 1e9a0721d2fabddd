"""Names are given and never taken, also where the system cannot do that in one step."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backup.restore import rename
from agent.backup.restore.rename import rename_to_new
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture


def unable(*_: object) -> int:
    """What NFS, NTFS-3G and many others say to RENAME_NOREPLACE."""
    ctypes.set_errno(errno.EINVAL)
    return -1


@pytest.fixture(params=["able", "unable"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    if request.param == "unable":
        monkeypatch.setattr(rename, "_renameat2", unable)
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_bytes(b"2")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_file_and_a_folder_get_a_name_that_nobody_has(folder: int, tmp_path: Path) -> None:
    rename_to_new(b"file", b"a", folder)
    rename_to_new(b"folder", b"b", folder)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b" / "inside").read_bytes() == b"2"


@pytest.mark.parametrize("what", ["file", "empty", "full"])
def test_what_has_the_name_stays(folder: int, tmp_path: Path, what: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"3") if what == "file" else other.mkdir()
    if what == "full":
        (other / "theirs").touch()
    for name in (b"file", b"folder"):
        with pytest.raises(FileExistsError):
            rename_to_new(name, b"other", folder)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder", "other"]
    assert other.is_file() == (what == "file")
    assert (tmp_path / "folder" / "inside").exists()


def test_somebody_who_fills_our_empty_folder_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rename, "_renameat2", unable)
    (tmp_path / "folder").mkdir()
    real = os.rename

    def late(old: bytes, new: bytes, **where: int) -> None:
        (tmp_path / "new" / "theirs").touch()
        real(old, new, **where)

    monkeypatch.setattr(os, "rename", late)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            rename_to_new(b"folder", b"new", fd)
    finally:
        os.close(fd)
    assert (tmp_path / "new" / "theirs").exists()
    assert (tmp_path / "folder").is_dir()


def test_new_folders_are_restored_there_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rename, "_renameat2", unable)
    machine = Machine(tmp_path)
    for name in ("one", "one/two"):
        (machine.files / name).mkdir()
        (machine.files / name / "file").write_bytes(name.encode())
    restored, done = machine.restore(machine.back_up().root)
    assert (done.failed.count, done.warnings.count) == (0, 0)
    assert picture(restored) == picture(machine.files)
