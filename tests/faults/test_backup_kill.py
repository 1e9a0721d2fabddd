"""A backup whose worker or controller is killed at any moment is taken up, and loses nothing."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.backup_world import World, body_of
from tests.unit.backup.trees import picture

SEED = 20261122
SAMPLED = [("flistxattr", 40), ("flistxattr", 400), ("rename", 1), ("rename", 2), ("sendmsg", 20)]
EVERY = [("flistxattr", number) for number in range(1, 700, 70)]
EVERY += [("rename", number) for number in (1, 2)]
EVERY += [("unlink", 1), ("flock", 1)]
EVERY += [("sendmsg", number) for number in range(1, 120, 6)]
NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="not run: strace is not installed"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.kill_controller()


def fill(world: World, seed: int, *, big_bytes: int = 3_000_000) -> None:
    """New content, so that nothing of an earlier test is held already."""
    chance = random.Random(seed)
    shutil.rmtree(world.files)
    for folder in range(6):
        directory = world.files / f"folder{folder}"
        directory.mkdir(parents=True)
        for number in range(100):
            size = chance.randint(1, 30_000)
            (directory / f"file{number:03}").write_bytes(chance.randbytes(size))
    for number in range(4):
        (world.files / f"big{number}").write_bytes(chance.randbytes(big_bytes))


def check(world: World, point: str, target: Path) -> None:
    record = next(one.record for one in world.points() if one.point_id == point)
    result = world.restore(record, target)
    assert result.state == "succeeded", result
    assert picture(target / world.files.name) == picture(world.files)


def killed_at(world: World, call: str, number: int, target: Path) -> bool:
    fill(world, SEED + sum(call.encode()) * 1000 + number)
    inject = f"inject={call}:signal=KILL:when={number}"
    acknowledged = len(world.points())
    first = world.back_up(
        "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject
    )
    if first is None:
        # Nothing half made is a restore point.
        for index, one in enumerate(world.points()[: len(world.points()) - acknowledged]):
            check(world, one.point_id, target / f"early{index}")
    result = world.back_up()
    assert result is not None
    assert result["state"] == "succeeded", result
    check(world, body_of(result)["point"], target / "restored")
    return first is None


@NEEDS_STRACE
@pytest.mark.parametrize(("call", "number"), SAMPLED)
def test_a_killed_backup_is_taken_up(world: World, tmp_path: Path, call: str, number: int) -> None:
    assert killed_at(world, call, number, tmp_path)


@NEEDS_STRACE
@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_backup_killed_anywhere_is_taken_up(world: World, tmp_path: Path) -> None:
    killed = 0
    for call, number in EVERY:
        target = tmp_path / f"{call}{number}"
        target.mkdir()
        killed += killed_at(world, call, number, target)
    assert killed > len(EVERY) // 2


def test_a_worker_killed_late_has_little_left_to_send(world: World, tmp_path: Path) -> None:
    fill(world, SEED + 1, big_bytes=10_000_000)
    said: list[int] = []

    def stop(progress: Mapping[str, Any]) -> None:
        said.append(progress["new_bytes"])

    # Killed at the rename that adopts the state: everything was sent and committed.
    world.back_up(
        "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename",
        "-e", "inject=rename:signal=KILL:when=2", on_progress=stop,
    )  # fmt: skip
    result = world.back_up()
    assert result is not None
    body = body_of(result)
    assert body["new_bytes"] < 1_000_000
    check(world, body["point"], tmp_path / "restored")


@pytest.mark.timeout(180)
def test_a_controller_killed_in_the_middle_loses_nothing(world: World, tmp_path: Path) -> None:
    fill(world, SEED + 2, big_bytes=20_000_000)
    kept = world.points()
    killed = 0

    def kill(progress: Mapping[str, Any]) -> None:
        nonlocal killed
        if progress["new_bytes"] > 15_000_000 * (1 + 2 * killed) and killed < 2:
            killed += 1
            world.kill_controller()
            world.start_controller()

    result = world.back_up(on_progress=kill)
    assert killed
    assert result is not None
    assert result["state"] == "succeeded", result
    body = body_of(result)
    assert body["lost_links"] >= 1
    check(world, body["point"], tmp_path / "restored")
    held = {one.point_id for one in world.points()}
    assert {one.point_id for one in kept} < held
