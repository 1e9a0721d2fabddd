"""What programs hold open for writing is named, also while it gets other names."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from agent.watch.held import Held, find_held


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Path]:
    """A directory of processes with one alone, which writes to `held` in `files`."""
    (tmp_path / "files").mkdir()
    processes = tmp_path / "processes"
    processes.mkdir()
    with (tmp_path / "files" / "held").open("wb") as file:
        program = subprocess.Popen(["sleep", "600"], stdout=file)
    (processes / str(program.pid)).symlink_to(f"/proc/{program.pid}")
    yield processes
    program.kill()
    program.wait()


def look(files: Path, processes: Path) -> Held:
    return find_held((bytes(files).lstrip(b"/"),), frozenset((files.stat().st_dev,)), processes)


def when_asked(monkeypatch: pytest.MonkeyPatch, acts: list[Callable[[], object]]) -> None:
    """Do one thing after another, each between a look at a name and one at what has it."""
    readlink = Path.readlink

    def asked(path: Path) -> Path:
        said = readlink(path)
        if "/fd/" in str(path) and "/files/" in str(said) and acts:
            acts.pop(0)()
        return said

    monkeypatch.setattr(Path, "readlink", asked)


def test_what_is_open_for_writing_is_named(tmp_path: Path, holder: Path) -> None:
    files = tmp_path / "files"
    assert look(files, holder) == Held({bytes(files / "held").lstrip(b"/")})


def test_a_file_that_is_renamed_while_one_looks_is_found_under_its_new_name(
    tmp_path: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "files"
    names = [files / name for name in ("held", "second", "third", "last")]
    when_asked(monkeypatch, [partial(old.rename, new) for old, new in pairwise(names)])
    assert look(files, holder) == Held({bytes(files / "last").lstrip(b"/")})


def test_a_file_that_has_lost_the_name_it_was_opened_by_is_nameless(
    tmp_path: Path, holder: Path
) -> None:
    files = tmp_path / "files"
    (files / "other").hardlink_to(files / "held")
    (files / "held").unlink()
    assert look(files, holder).nameless
    (files / "other").unlink()
    assert look(files, holder) == Held()


def test_a_file_that_is_closed_under_its_second_name_is_held_by_nobody(
    tmp_path: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "files"
    (files / "other").hardlink_to(files / "held")
    (files / "held").unlink()
    process = int(next(holder.iterdir()).name)
    ended: list[Callable[[], object]] = [lambda: None, lambda: os.kill(process, signal.SIGKILL)]
    when_asked(monkeypatch, ended)
    assert not look(files, holder).nameless


@pytest.mark.parametrize("name", ["mapped", "with\nan end", "Icon\r", "a\rb"])
def test_what_is_mapped_for_writing_is_named(tmp_path: Path, name: str) -> None:
    files, processes = tmp_path / "files", tmp_path / "processes"
    files.mkdir()
    processes.mkdir()
    (files / name).write_bytes(bytes(4096))
    with (files / name).open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        mapped.close()
        (processes / str(child)).symlink_to(f"/proc/{child}")
        assert look(files, processes) == Held({bytes(files / name).lstrip(b"/")})
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
