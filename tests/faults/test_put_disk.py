"""A file is put on a disk that fills up, or loses its power, while it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.files.receive import write_file
from agent.files.way import spot_at
from protocol.errors import Code, SteadError
from protocol.parcel import PIECE_BYTES
from tests.faults.disk import Disk, need_disks, run
from tests.unit.agent.test_files import KEY, NOWHERE, TASK, names, order_of, parcels_of

pytestmark = pytest.mark.root
PIECES = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need_disks()
    made = Disk(tmp_path / "made", "64M")
    (made.mounted / "lost+found").rmdir()
    (made.mounted / "a").write_bytes(b"old")
    run("sync", "-f", str(made.mounted))
    yield made
    made.unmount()


def put(path: Path, content: bytes, after: int, act: Callable[[], object]) -> None:
    """Put a file, and do something once so many pieces are written."""
    action = order_of(path, content)

    def told(done: int) -> None:
        if done == after * PIECE_BYTES:
            act()

    with spot_at(action.path, NOWHERE) as spot:
        write_file(spot, action, KEY, parcels_of(content), TASK, wait=lambda _: None, told=told)


def nothing() -> None:
    pass


@pytest.mark.parametrize("after", range(1, PIECES))
def test_a_disk_that_fills_up_keeps_the_old_file_and_no_part(disk: Disk, after: int) -> None:
    content = os.urandom(PIECES * PIECE_BYTES)
    path = disk.mounted / "a"

    with pytest.raises(SteadError) as error:
        put(path, content, after, lambda: disk.leave(0))
    assert error.value.code is Code.STORE_FULL
    assert path.read_bytes() == b"old"
    assert names(disk.mounted) == ["a", "ballast"]
    (disk.mounted / "ballast").unlink()
    put(path, content, after, nothing)
    assert path.read_bytes() == content
    assert names(disk.mounted) == ["a"]


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("after", range(1, PIECES + 1))
def test_a_power_cut_leaves_the_old_file_and_the_next_run_puts_the_new(
    disk: Disk, after: int, synced: bool
) -> None:
    content = os.urandom(PIECES * PIECE_BYTES)
    path = disk.mounted / "a"

    def cut() -> None:
        if synced:
            run("sync", "-f", str(disk.mounted))
        disk.cut()

    with pytest.raises(SteadError):
        put(path, content, after, cut)
    disk.remount()
    assert path.read_bytes() == b"old"
    put(path, content, 0, nothing)
    assert path.read_bytes() == content
    assert names(disk.mounted) == ["a"]


def test_a_file_that_was_put_outlasts_a_power_cut(disk: Disk) -> None:
    content = os.urandom(PIECES * PIECE_BYTES)
    put(disk.mounted / "a", content, 0, nothing)
    disk.cut()
    disk.remount()
    assert (disk.mounted / "a").read_bytes() == content
    assert names(disk.mounted) == ["a"]
