"""A restore whose worker is killed at any call leaves whole files only, and goes on."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from agent.backup.restore.direct import LEAST_BYTES
from tests.faults.backup_world import World, body_of
from tests.unit.backup.trees import picture

SEED = 20261126
RENAMES = "rename,renameat,renameat2"
FOLDERS = ("folder0", "folder1", "folder2")
# The call, which one of them, and whether the folders are there before.
SAMPLED = [
    ("write", 150, False),
    (RENAMES, 4, False),
    ("utimensat", 301, False),
    (RENAMES, 120, True),
    ("fchmod", 90, True),
    ("pwrite64", 2, False),
]
CALLS = (
    *((call, False) for call in ("write", "pwrite64", "openat", "utimensat")),
    *((call, True) for call in ("write", RENAMES, "fchown", "fchmod")),
)
NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="not run: strace is not installed"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    chance = random.Random(SEED)
    for folder in range(3):
        directory = made.files / f"folder{folder}"
        directory.mkdir()
        for number in range(100):
            (directory / f"file{number:03}").write_bytes(chance.randbytes(number * 50))
    (made.files / "big").write_bytes(chance.randbytes(LEAST_BYTES + 1_000_001))
    os.link(made.files / "big", made.files / "big-too")
    (made.files / "folder1" / "link").symlink_to("file001")
    assert made.back_up() is not None
    yield made
    made.kill_controller()


def killed_and_taken_up(
    world: World,
    call: str,
    number: int,
    target: Path,
    *,
    there: bool = False,
    overwrite: bool = True,
) -> bool:
    target.mkdir()
    for folder in FOLDERS if there else ():
        (target / world.files.name / folder).mkdir(parents=True)
    record = world.points()[0].record
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
    first = world.restore_in_worker(
        record, target, "strace", "-f", "-qq", "-o", "/dev/null", *inject, overwrite=overwrite
    )
    original, restored = picture(world.files), target / world.files.name
    found = picture(restored) if restored.exists() else {}
    for name, facts in found.items():
        if b".stead-restore-" not in name and "content" in facts:
            # What has its name is whole.
            assert facts["content"] == original[name]["content"], name
            assert facts["mode"] == original[name]["mode"], name
    second = world.restore_in_worker(record, target, overwrite=overwrite)
    assert second is not None
    assert second["state"] == "succeeded", second
    body = body_of(second)
    whole = sum("content" in facts and b".stead-restore-" not in n for n, facts in found.items())
    # The second of two names of one file is made again: its twin may be another by then.
    assert body["same"] >= whole - 2
    assert picture(target / world.files.name) == original
    return first is None


@NEEDS_STRACE
@pytest.mark.parametrize(("call", "number", "there"), SAMPLED)
def test_a_killed_restore_goes_on(
    world: World, tmp_path: Path, call: str, number: int, *, there: bool
) -> None:
    assert killed_and_taken_up(world, call, number, tmp_path / "target", there=there)


@NEEDS_STRACE
@pytest.mark.parametrize(("call", "number"), [("utimensat", 90), ("fchmod", 3)])
def test_folders_do_not_keep_the_mode_they_were_made_with(
    world: World, tmp_path: Path, call: str, number: int
) -> None:
    # The second time among the folders, which come last.
    assert killed_and_taken_up(world, call, number, tmp_path / "target", overwrite=False)


@NEEDS_STRACE
@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_restore_killed_anywhere_goes_on(world: World, tmp_path: Path) -> None:
    """At every 25th of each kind of call, beginning 4 later with each kind, to the last."""
    tried = killed = 0
    for kind, (call, there) in enumerate(CALLS):
        missed = 0
        for number in count(1 + 4 * kind, 25):
            tried += 1
            target = tmp_path / f"target{tried}"
            was_killed = killed_and_taken_up(world, call, number, target, there=there)
            shutil.rmtree(target)
            killed += was_killed
            # Threads share the calls: one that is not reached may be the others' doing.
            missed = 0 if was_killed else missed + 1
            if missed == 2:
                break
    print(f"{killed} of {tried} restores were killed; none left a file that was not whole")
    assert killed > 6 * len(CALLS)


@NEEDS_STRACE
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_an_error_while_writing_costs_no_more_than_the_file(
    world: World, tmp_path: Path, error: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    record = world.points()[0].record
    result = world.restore_in_worker(
        record, target, "strace", "-f", "-qq", "-o", "/dev/null",
        "-e", "trace=utimensat", "-e", f"inject=utimensat:error={error}:when=50",
    )  # fmt: skip
    assert result is not None
    assert result["state"] == ("failed" if error == "ENOSPC" else "partial"), result
    second = world.restore_in_worker(record, target)
    assert second is not None
    assert second["state"] == "succeeded", second
    assert picture(target / world.files.name) == picture(world.files)
