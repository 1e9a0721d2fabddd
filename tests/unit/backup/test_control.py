"""Pause, resume and cancel through a file, as a running backup sees them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from agent.backup.send import control as module
from agent.backup.send.control import Control, cancel, controlled, is_working, pause, resume
from agent.backup.send.vault import Batch
from agent.config import AgentHome
from protocol.errors import Code, SteadError
from tests.fakes.memory_vault import MemoryVault
from tests.unit.backup.machine import Machine

SOON_S = 20.0


class Heard:
    """What a followed file led to."""

    def __init__(self) -> None:
        self.paused = threading.Event()
        self.ended = threading.Event()
        self.by: list[str] = []

    def say(self, by: str) -> None:
        self.by.append(by)
        self.paused.set()

    def end(self, by: str) -> None:
        self.by.append(by)
        self.ended.set()


def test_a_pause_holds_and_a_resume_lets_go_within_a_second(tmp_path: Path) -> None:
    home, heard = AgentHome(tmp_path), Heard()
    passed = threading.Event()
    control = Control()
    with controlled(home, control, end=heard.end, say=heard.say):
        assert pause(home, "root")
        assert heard.paused.wait(SOON_S)
        assert heard.by == ["root"]

        def pass_through() -> None:
            control.hold(lambda: None)
            passed.set()

        thread = threading.Thread(target=pass_through)
        thread.start()
        assert not passed.wait(0.5)
        assert resume(home)
        assert passed.wait(SOON_S)
        thread.join()
    assert not is_working(home)


def test_a_paused_backup_keeps_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.01)
    control, kept = Control(), threading.Event()
    control.wished(paused=True)
    thread = threading.Thread(target=control.hold, args=(kept.set,))
    thread.start()
    assert kept.wait(SOON_S)
    control.wished(paused=False)
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_a_cancel_means_what_runs_and_not_what_comes_later(tmp_path: Path) -> None:
    home, heard = AgentHome(tmp_path), Heard()
    with pytest.raises(SteadError, match="no backup or restore runs") as caught:
        cancel(home, "root")
    assert caught.value.code is Code.NOT_FOUND
    with controlled(home, Control(), end=heard.end, say=heard.say):
        with pytest.raises(SteadError) as caught:
            cancel(home, "root", within_s=0.0)  # this end is none
        assert caught.value.code is Code.TIMED_OUT
        assert heard.ended.wait(SOON_S)
    later = Heard()
    with controlled(home, Control(), end=later.end, say=later.say):
        assert not later.ended.wait(0.5)


def test_a_cancel_comes_too_late_for_a_commit_that_has_begun() -> None:
    control, ended = Control(), threading.Event()
    control.settle()
    control.cancel(ended.set)
    assert not ended.is_set()


def test_a_damaged_file_stops_no_backup_and_resume_mends_it(tmp_path: Path) -> None:
    home, heard = AgentHome(tmp_path), Heard()
    home.backup_wish.write_bytes(b"{")
    control = Control()
    with controlled(home, control, end=heard.end, say=heard.say):
        control.hold(lambda: None)
        resume(home)
        assert pause(home, "root")
        assert heard.paused.wait(SOON_S)


class Gated(MemoryVault):
    """Pauses the backup with its first message, and counts what comes."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self.control = control
        self.messages = 0
        self.first = threading.Event()

    def put(self, session: str, batches: Iterable[Batch]) -> Iterator[int]:
        def noted() -> Iterator[Batch]:
            for batch in batches:
                self.messages += 1
                if not self.first.is_set():
                    self.control.wished(paused=True)
                    self.first.set()
                yield batch

        return super().put(session, noted())


def test_while_paused_nothing_is_sent_and_then_the_backup_becomes_whole(tmp_path: Path) -> None:
    control = Control()
    vault = Gated(control)
    machine = Machine(tmp_path, vault)
    for number in range(30):
        (machine.files / str(number)).write_bytes(os.urandom(400_000))
    done = threading.Event()
    reports = []

    def run() -> None:
        reports.append(machine.back_up(control=control, limit_upload=10_000_000))
        done.set()

    threading.Thread(target=run, daemon=True).start()
    assert vault.first.wait(20)
    assert not done.wait(0.5)
    assert vault.messages == 1
    control.wished(paused=False)
    assert done.wait(20)
    assert vault.messages > 5
    assert reports[0].is_complete
    assert reports[0].lost_links == 0
