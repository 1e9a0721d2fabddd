"""Restores wait while they are paused, and fetch no faster than their limit."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.backup.restore.flow import Flow
from agent.backup.send.control import Control
from agent.backup.send.pace import BURST_S
from protocol.vault.chunk import ChunkId
from tests.fakes.memory_vault import MemoryVault
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture


class CountingVault(MemoryVault):
    """Notes when how much was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[float, int]] = []

    def get(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        for stored in super().get(ids):
            self.given.append((time.monotonic(), len(stored)))
            yield stored


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path, CountingVault())
    chance = random.Random(4)
    for number in range(40):
        (made.files / f"{number:02}").write_bytes(chance.randbytes(20_000))
    return made


def test_no_span_of_time_brings_more_than_the_limit(machine: Machine) -> None:
    report = machine.back_up()
    rate = 600_000
    target = machine.home / "target"
    target.mkdir()
    machine.vault.given.clear()
    began = time.monotonic()
    machine.restoring(report.root, target, flow=Flow(limit=rate)).run()
    took = time.monotonic() - began
    given = machine.vault.given
    whole = sum(size for _, size in given)
    assert whole > 800_000
    assert took >= whole / rate - BURST_S
    largest = max(size for _, size in given)
    for first, (begun, _) in enumerate(given):
        came = 0
        for at, size in given[first:]:
            came += size
            # Paid for before it is asked for, by any of three threads, each a call at once.
            assert came <= rate * (at - begun + BURST_S) + 3 * (rate * BURST_S / 2 + largest)
    assert picture(target / "files") == picture(machine.files)


def test_a_limit_costs_what_came_and_not_what_it_unfolds_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, CountingVault())
    for number in range(40):
        (machine.files / f"{number:02}").write_bytes(b"%d" % number * 200_000)
    report = machine.back_up()
    target = machine.home / "target"
    target.mkdir()
    taken: list[int] = []
    flow = Flow(limit=100_000_000)
    take, settle = flow.take, flow.settle

    def take_noted(size: int) -> None:
        taken.append(size)
        take(size)

    def settle_noted(was: int, came: int) -> None:
        taken.append(came - was)
        settle(was, came)

    monkeypatch.setattr(flow, "take", take_noted)
    monkeypatch.setattr(flow, "settle", settle_noted)
    restore = machine.restoring(report.root, target, flow=flow)
    machine.vault.given.clear()
    restore.run()
    assert sum(taken) == sum(size for _, size in machine.vault.given)


@pytest.mark.parametrize("limit", [0, 50_000_000])
def test_a_paused_restore_writes_nothing_and_goes_on(
    machine: Machine, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = machine.back_up()
    control = Control()
    flow = Flow(control, limit)
    target = machine.home / "target"
    target.mkdir()
    restore = machine.restoring(report.root, target, flow=flow)
    waiting = threading.Event()
    hold = control.hold

    def note(*arguments: Any) -> None:
        if restore.done.files == 10:
            control.wished(paused=True)
            waiting.set()
        hold(*arguments)

    monkeypatch.setattr(control, "hold", note)
    worker = threading.Thread(target=restore.run)
    worker.start()
    assert waiting.wait(60)
    threading.Event().wait(0.3)  # what must not happen needs time not to happen in
    assert restore.done.files == 10
    assert worker.is_alive()
    monkeypatch.setattr(control, "hold", hold)
    control.wished(paused=False)
    worker.join(60)
    assert picture(target / "files") == picture(machine.files)


def test_a_paused_preview_waits_as_well(machine: Machine) -> None:
    report = machine.back_up()
    control = Control()
    control.wished(paused=True)
    target = machine.home / "target"
    target.mkdir()
    found: list[Mapping[str, Any]] = []
    restore = machine.restoring(report.root, target, flow=Flow(control))
    worker = threading.Thread(target=lambda: found.append(restore.preview().as_json()))
    worker.start()
    worker.join(0.3)  # what must not happen needs time not to happen in
    assert found == []
    control.wished(paused=False)
    worker.join(60)
    assert found[0]["create"] == 41
