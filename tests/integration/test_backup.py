"""Backup and restore as a worker runs them, over real mutual TLS."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import Code
from tests.faults.backup_world import World, body_of
from tests.unit.backup.trees import picture


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    for folder in range(5):
        directory = made.files / f"folder{folder}"
        directory.mkdir()
        for number in range(200):
            (directory / f"file{number:03}").write_bytes(os.urandom(number * 40))
    (made.files / "big").write_bytes(os.urandom(5_000_000))
    (made.files / "link").symlink_to("big")
    os.link(made.files / "big", made.files / "big-too")
    yield made
    made.kill_controller()


def test_backups_and_restores_go_through_real_workers(world: World, tmp_path: Path) -> None:
    first = world.back_up()
    assert first is not None
    assert first["state"] == "succeeded", first
    second = world.back_up()
    assert second is not None
    before, after = body_of(first), body_of(second)
    assert before["files"] == after["files"] == 1002
    assert after["sent_bytes"] < before["sent_bytes"] / 20
    for index, point in enumerate(world.points()):
        result = world.restore(point.record, tmp_path / f"target{index}")
        assert result.state == "succeeded", result
        assert picture(tmp_path / f"target{index}" / "files") == picture(world.files)


def test_a_backup_of_nothing_fails(world: World) -> None:
    kept = world.files
    gone = world.files.parent / "gone"
    try:
        world.files = gone
        result = world.back_up()
    finally:
        world.files = kept
    assert result is not None
    assert (result["state"], result["code"]) == ("failed", Code.NOT_FOUND)


def test_a_restore_leaves_what_is_there(world: World, tmp_path: Path) -> None:
    if not world.points():
        world.back_up()
    target = tmp_path / "target"
    (target / "files").mkdir(parents=True)
    (target / "files" / "big").write_bytes(b"mine")
    result = world.restore(world.points()[0].record, target)
    assert result.state == "partial"
    assert (target / "files" / "big").read_bytes() == b"mine"
    shutil.rmtree(target)
