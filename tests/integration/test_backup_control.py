"""A limited backup over real mutual TLS is paused, resumed and cancelled, then made again."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.backup_world import World, body_of
from tests.unit.backup.trees import picture

RATE = 400_000
FILES, FILE_BYTES = 80, 60_000
PAUSE_S = 2.0
SLACK_BYTES = 3 * RATE // 4
"""The burst, a message, and half a second: what is between two words of progress."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("control") / "world")
    for number in range(FILES):
        (made.files / f"{number:03}").write_bytes(os.urandom(FILE_BYTES))
    yield made
    made.kill_controller()


class Administrator:
    """Pauses, resumes and cancels with the machine's own command, as the backup goes on."""

    def __init__(self, world: World) -> None:
        self._must = world.installation.must
        self.step = "begin"
        # Before the first word, which may be heard late: so the limit is never judged too hard.
        self.begun = time.monotonic()
        self.paused_s = 0.0
        self.sent = 0
        self.cancelled_at = 0.0

    def hear(self, said: Mapping[str, Any]) -> None:
        if said["phase"] == "paused":
            assert self.step == "pause"
            began = time.monotonic()
            threading.Event().wait(PAUSE_S)  # what must not happen needs time not to happen in
            # The command resumes it before it ends itself, so only what is before it is certain.
            self.paused_s = time.monotonic() - began
            self._must("stead-agent", "backup", "resume")
            self.step = "resumed"
            return
        self.sent = max(self.sent, said["sent_bytes"])
        if self.step == "begin" and self.sent:
            self.step = "pause"
            assert self._must("stead-agent", "backup", "pause").strip() == "paused"
        elif self.step == "resumed":
            active = time.monotonic() - self.begun - self.paused_s
            assert self.sent <= RATE * active + SLACK_BYTES
            if self.sent > FILES * FILE_BYTES / 3:
                self.step = "cancelled"
                self.cancelled_at = time.monotonic()
                self._must("stead-agent", "backup", "cancel")


def test_a_limited_backup_is_paused_resumed_and_cancelled_and_then_sends_only_the_rest(
    world: World, tmp_path: Path
) -> None:
    administrator = Administrator(world)
    result = world.back_up(on_progress=administrator.hear, limit_upload=RATE)
    assert administrator.step == "cancelled"
    assert result is not None
    assert result["state"] == "cancelled"
    assert "cancelled on the machine by" in result["message"]
    assert world.points() == []
    whole = FILES * FILE_BYTES
    again = world.back_up()
    assert again is not None
    assert again["state"] == "succeeded", again
    assert body_of(again)["sent_bytes"] <= whole - administrator.sent + SLACK_BYTES
    [point] = world.points()
    assert world.restore(point.record, tmp_path / "target").state == "succeeded"
    assert picture(tmp_path / "target" / "files") == picture(world.files)


def test_a_limited_restore_is_paused_resumed_and_cancelled_and_then_goes_on(
    world: World, tmp_path: Path
) -> None:
    if not world.points():
        assert world.back_up() is not None
    record = world.points()[0].record
    target = tmp_path / "target"
    target.mkdir()
    must = world.installation.must
    steps: list[str] = []

    def restored() -> int:
        return sum(1 for path in target.rglob("*") if path.is_file())

    def hear(said: Mapping[str, Any]) -> None:
        if said["phase"] == "paused":
            before = restored()
            threading.Event().wait(PAUSE_S / 2)  # what must not happen needs time for that
            # One file is being written when the pause takes hold.
            assert restored() <= before + 1
            steps.append("paused")
            told = world.installation.run("stead-agent", "status", "--output", "json")
            assert json.loads(told.stdout)["paused_by"] == said["by"]
            must("stead-agent", "backup", "resume")
        elif not steps and said.get("files", 0) > 5:
            steps.append("pause")
            assert must("stead-agent", "backup", "pause").strip() == "paused"
        elif steps[-1:] == ["paused"]:
            steps.append("cancel")
            must("stead-agent", "backup", "cancel")

    first = world.restore_in_worker(
        record, target, overwrite=False, limit_download=RATE // 4, on_progress=hear
    )
    assert steps == ["pause", "paused", "cancel"]
    assert first is not None
    assert first["state"] == "cancelled"
    assert "cancelled on the machine by" in first["message"]
    here = restored()
    assert 5 < here < FILES
    second = world.restore_in_worker(record, target, overwrite=False)
    assert second is not None
    assert second["state"] == "succeeded", second
    assert body_of(second)["same"] >= here - 1
    assert picture(target / "files") == picture(world.files)
