"""What only the local directory does: its files, its leftovers, its order of acts."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from controller.store.local import LocalStore
from controller.store.store import StoreFailedError, StoreFullError
from protocol.errors import InvalidError
from tests.fakes.memory_store import MemoryStore


def test_leftovers_of_a_dead_writer_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    LocalStore.open(tmp_path)
    dead, living = tmp_path / ".temporary/dead", tmp_path / ".temporary/living"
    dead.write_bytes(b"half")
    with living.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        LocalStore.open(tmp_path)
        assert not dead.exists()
        assert living.exists()


def test_what_is_put_aside_stays_with_its_reason(tmp_path: Path) -> None:
    store = LocalStore.open(tmp_path)
    for body in (b"bad", b"worse"):
        store.put("a/b", [body])
        store.quarantine("a/b", f"found {body.decode()}")
    aside = sorted((tmp_path / ".quarantine/a").iterdir())
    pairs = {
        path.read_bytes(): path.with_name(path.name + ".reason").read_text()
        for path in aside
        if path.suffix != ".reason"
    }
    assert pairs == {b"bad": "found bad\n", b"worse": "found worse\n"}


def test_objects_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    store = LocalStore.open(tmp_path / "objects")
    store.put("a/b", [b"x"])
    for path in (tmp_path / "objects", tmp_path / "objects/a", tmp_path / "objects/a/b"):
        assert path.stat().st_mode & 0o077 == 0


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    store = LocalStore.open(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(50):
        store.put(f"a/{number}", [b"x"])
        store.put(f"a/{number}", [b"x"])
        store.get(f"a/{number}")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list((tmp_path / ".temporary").iterdir()) == []


def test_after_a_failed_directory_fsync_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore.open(tmp_path)
    store.put("a/first", [b"x"])
    real = os.fsync

    def failing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StoreFailedError, match="Input/output error"):
        store.put("a/second", [b"x"])
    monkeypatch.undo()
    for key in ("a/second", "a/third"):
        with pytest.raises(StoreFailedError, match="restart"):
            store.put(key, [b"x"])
    assert store.get("a/first") == b"x"


def test_a_leftover_that_cannot_be_removed_is_said_to_be_the_disks_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore.open(tmp_path)
    store.put("a/a", [b"x"])
    before = len(list(Path("/proc/self/fd").iterdir()))

    def failing(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "unlink", failing)
    with pytest.raises(StoreFailedError):
        store.put("a/b", [b"x"])
    monkeypatch.undo()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_fake_can_be_full() -> None:
    store = MemoryStore(capacity_bytes=4)
    store.put("a", [b"abc"])
    with pytest.raises(StoreFullError) as caught:
        store.put("b", [b"de"])
    assert (caught.value.free_bytes, caught.value.needed_bytes) == (1, 2)
    store.delete("a")
    assert store.put("b", [b"de"])


def test_reading_is_safe_beside_deleting(tmp_path: Path) -> None:
    store = LocalStore.open(tmp_path)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            store.put("a/x", [b"x" * 5000])
            store.delete("a/x")

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        store.put("a/y", [b"y"])
        for _ in range(300):
            assert ("a/y", 1) in list(store.list())
    finally:
        stop.set()
        worker.join()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "objects").write_bytes(b"in the way")
    with pytest.raises(InvalidError, match="objects is not a directory"):
        LocalStore.open(tmp_path / "objects")
