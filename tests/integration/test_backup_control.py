"""A limited backup over real mutual TLS is paused, resumed and cancelled, then made again."""

from __future__ import annotations

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


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "world")
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
            self._must("stead-agent", "backup", "resume")
            self.paused_s = time.monotonic() - began
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
