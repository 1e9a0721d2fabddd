"""Backup and restore as a worker runs them, over real mutual TLS."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.actions.action import Workplace
from agent.actions.backup import execute as back_up
from agent.host import clock
from agent.link.identity import open_channel
from protocol.action import RunBackup
from protocol.errors import Code
from protocol.ids import TaskId
from tests.fakes.side_streams import SideStreams
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


def test_named_streams_go_to_the_vault_and_come_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = SideStreams(tmp_path / "side")
    side.side.mkdir()
    side.install(monkeypatch)
    files = tmp_path / "files"
    huge = random.Random(1).randbytes(2_000_000)
    (files / "folder").mkdir(parents=True)
    for number in range(300):
        (files / "folder" / f"file{number:03}").write_bytes(b"%d" % number * 300)
        side.give(files / "folder" / f"file{number:03}", note=b"%d" % number * 20)
    (files / "large").write_bytes(huge)
    side.give(files / "large", huge=huge[::-1], none=b"")
    side.give(files / "folder", icon=huge[:9_000])
    monkeypatch.setattr(world, "files", files)
    place = Workplace(
        world.home,
        world.identity.tenant,
        world.identity.machine,
        TaskId(clock.new_id("ts")),
        lambda: open_channel(world.home),
        lambda _said: None,
    )
    done = back_up(RunBackup((bytes(files),)), place)
    assert done.state == "succeeded", done
    result = world.restore(world.points()[0].record, tmp_path / "target")
    assert (result.state, json.loads(result.result)["warnings"]) == ("succeeded", [])
    for path in (files / "folder", *files.rglob("*")):
        restored = tmp_path / "target" / "files" / path.relative_to(files)
        assert side.of(restored) == side.of(path), path
        assert restored.stat().st_mtime_ns == path.stat().st_mtime_ns, path
    side.close()
