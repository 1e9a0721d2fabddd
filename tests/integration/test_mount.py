"""Restore points as a file system, compared with the files by a program that is not ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.cli.commands.mounting import fuse_library
from protocol.errors import Code, SteadError
from tests.integration.browse_world import BrowseWorld, browse_world

USABLE = shutil.which("fusermount3") is not None and os.access("/dev/fuse", os.R_OK | os.W_OK)
FUSE = pytest.mark.skipif(not USABLE, reason="not run: no FUSE that can be used")
STOP_S = 30.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowseWorld]:
    with browse_world(tmp_path_factory.mktemp("mount")) as made:
        yield made


@contextmanager
def mounted(
    world: BrowseWorld, directory: Path, *point: str, end: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    directory.mkdir()
    stead = str(Path(sys.executable).parent / "stead")
    process = subprocess.Popen(
        [stead, "backup", "mount", world.machine, *point, str(directory)],
        env=world.installation.environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert "mounted at" in line, line + process.stderr.read()
        yield
    finally:
        process.send_signal(end)
        _, said = process.communicate(timeout=STOP_S)
    assert process.returncode == 0, said
    assert not os.path.ismount(directory)


@FUSE
@pytest.mark.skipif(shutil.which("rsync") is None, reason="not run: rsync is missing")
def test_a_mounted_point_is_the_machine_as_it_was(world: BrowseWorld, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with mounted(world, there, "latest"):
        shown = there / str(world.files).lstrip("/")
        ended = subprocess.run(
            ["rsync", "-aHAX", "-n", "--checksum", "--delete", "--itemize-changes",
             f"{world.files}/", f"{shown}/"],
            capture_output=True, check=True,
        )  # fmt: skip
        assert ended.stdout == b""
        dog, hound = ((shown / "photos" / name).stat() for name in ("dog.jpg", "hound.jpg"))
        assert (dog.st_nlink, dog.st_ino) == (2, hound.st_ino)
        assert (shown / "sparse").stat().st_blocks * 512 < 1_000_000
        assert os.getxattr(shown / "docs/report.txt", "user.mood") == b"good\x00day"
        with (shown / "photos/cat.jpg").open("rb") as file:
            file.seek(2_999_990)
            assert file.read() == (world.files / "photos/cat.jpg").read_bytes()[-10:]
        with pytest.raises(OSError, match="Read-only"):
            (shown / "mine").write_text("x")
        with pytest.raises(FileNotFoundError):
            (shown / "nothing").stat()


@FUSE
def test_all_points_are_folders_by_their_times(world: BrowseWorld, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with mounted(world, there, end=signal.SIGINT):
        names = sorted(os.listdir(there))  # noqa: PTH208
        assert len(names) == 4
        assert names[-1] == "latest"
        below = str(world.files / "docs").lstrip("/")
        assert sorted(path.name for path in (there / names[0] / below).iterdir()) == [
            "old",
            "report.txt",
        ]
        assert (there / "latest" / below / "new.txt").read_text() == "new\n" * 100
        assert not (there / "latest" / below / "old/notes.txt").exists()


def test_a_directory_that_is_not_empty_is_refused(
    world: BrowseWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    assert world.stead("backup", "mount", world.machine, "latest", str(tmp_path)) == 2
    assert "empty directory" in capsys.readouterr().err


def test_missing_fuse_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(SteadError, match="install the package fuse3") as caught:
        fuse_library()
    assert caught.value.code is Code.PRECONDITION
