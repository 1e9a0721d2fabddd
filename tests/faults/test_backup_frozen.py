"""A backup frozen past its lease, for hours and days, while the controller collects.

The worker of the agent is stopped by SIGSTOP in the middle of its upload, the clock of
the controller is set ahead, and collections run until what the worker relied on would be
gone. Then it goes on: it is told that its session ran out, sends what is not held, and
its restore point is whole. What is sent again is counted.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.backup.send.upload import ROOM_BYTES
from tests.faults.backup_world import World, body_of
from tests.unit.backup.trees import picture

SEED = 20261128
HOUR, DAY = 3600, 86_400
FILES, FILE_BYTES = 4, 20_000_000
FROZEN_AT = 45_000_000
"""So much was sent by then, and most of it acknowledged."""


class Clock:
    """The controller's clock, in a file that it reads anew each time."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._ahead = 0
        self.advance(0)

    def advance(self, seconds: int) -> None:
        self._ahead += seconds
        new = self.file.with_suffix(".new")
        new.write_text(f"{self._ahead}")
        new.rename(self.file)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "clock")


@pytest.fixture(scope="module")
def world(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"), clock.file)
    yield made
    made.kill_controller()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process and its children stand still inside the block."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    for one in family:
        os.kill(one.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            os.kill(one.pid, signal.SIGCONT)


def collect(world: World) -> None:
    world.installation.must("stead", "vault", "collect")


def minutes(world: World, clock: Clock) -> None:
    """The lease is half over."""
    clock.advance(8 * 60)
    collect(world)


def hours(world: World, clock: Clock) -> None:
    """The lease is over, and what was sent is young."""
    clock.advance(5 * HOUR)
    collect(world)


def days(world: World, clock: Clock) -> None:
    """What was sent is not young any more, was condemned and its grace is over."""
    world.kill_controller()
    for _ in range(3):
        clock.advance(3 * DAY)
        world.start_controller()
        collect(world)
        world.kill_controller()
    world.start_controller()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("freeze", "most_again", "lost_links"),
    [
        pytest.param(hours, ROOM_BYTES, 1, id="hours"),
        pytest.param(minutes, 0, 0, id="minutes", marks=pytest.mark.full),
        pytest.param(days, FILES * FILE_BYTES, 0, id="days", marks=pytest.mark.full),
    ],
)
def test_a_backup_that_was_frozen_past_its_lease_ends_well(
    world: World, clock: Clock, tmp_path: Path, freeze: Any, most_again: int, lost_links: int
) -> None:
    chance = random.Random(SEED + most_again)
    shutil.rmtree(world.files)
    world.files.mkdir()
    for number in range(FILES):
        (world.files / f"big{number}").write_bytes(chance.randbytes(FILE_BYTES))
    froze = said = before = 0

    def stop(progress: Mapping[str, Any]) -> None:
        nonlocal froze, said, before
        if progress["new_bytes"] < said:
            # It reads everything once more, and counts from nothing.
            before += said
        said = progress["new_bytes"]
        if said > FROZEN_AT and not froze:
            froze = said
            with frozen(world.worker):
                freeze(world, clock)

    result = world.back_up(on_progress=stop, limit_upload=40_000_000)
    assert froze
    assert result is not None
    assert result["state"] == "succeeded", result
    body = body_of(result)
    again = before + body["new_bytes"] - FILES * FILE_BYTES
    print(f"{freeze.__name__}: {froze} bytes were sent, {again} were sent again")
    # The tree and the chunks' headers are more than the content.
    assert again <= most_again + 200_000
    assert body["lost_links"] >= lost_links
    record = next(one.record for one in world.points() if one.point_id == body["point"])
    restored = world.restore(record, tmp_path / "restored")
    assert restored.state == "succeeded", restored
    assert picture(tmp_path / "restored" / world.files.name) == picture(world.files)
    collect(world)
    assert '"ok"' in world.installation.must("stead", "vault", "check", "--output", "json")
