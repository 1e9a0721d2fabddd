"""A worker that may use a part of a processor uses no more of it, however busy the machine is."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backup.cut.sealers import Sealers
from agent.backup.restore.flow import Flow
from agent.backup.send.control import Control
from agent.backup.send.share import BURST_S, Share, processor_time
from tests.unit.backup.machine import WHO, Machine
from tests.unit.backup.trees import picture

STEPS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=40)


@given(percent=st.integers(1, 400), steps=STEPS)
def test_who_rests_as_told_never_uses_more_than_the_share(
    percent: int, steps: list[tuple[float, float]]
) -> None:
    share = Share(percent)
    now = used = 0.0
    share.rest(used, now)
    for work, idle in steps:
        # One thread alone: what it uses takes at least as long.
        now, used = now + work + idle, used + work
        now += share.rest(used, now)
        assert used <= percent / 100 * (now + BURST_S) + 1e-6


def test_the_clock_of_a_forked_process_counts() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        while time.process_time() < 0.2:
            pass
        os.write(writing, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        assert os.read(reading, 1) == b"x"
        before = time.process_time()
        assert processor_time([child]) >= before + 0.2
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert processor_time([child]) >= 0


PERCENT = 25


@pytest.mark.parametrize("forked", [False, True])
def test_a_backup_and_a_restore_keep_to_their_share(tmp_path: Path, *, forked: bool) -> None:
    machine = Machine(tmp_path)
    chance = random.Random(4)
    for number in range(6_000):
        (machine.files / f"{number:04}").write_bytes(chance.randbytes(2_000))
    (machine.files / "big").write_bytes(chance.randbytes(20_000_000))
    with Sealers(WHO.secret, forked=forked) as sealers:
        control = Control()
        control.share(PERCENT, sealers.processes)
        used, began = processor_time(sealers.processes), time.monotonic()
        report = machine.back_up(sealers=sealers, control=control)
        check(processor_time(sealers.processes) - used, time.monotonic() - began)
    target = tmp_path / "target"
    target.mkdir()
    control.share(PERCENT)
    restore = machine.restoring(report.root, target, flow=Flow(control))
    used, began = time.process_time(), time.monotonic()
    restore.run()
    check(time.process_time() - used, time.monotonic() - began)
    assert picture(target / "files") == picture(machine.files)


def check(used: float, took: float) -> None:
    # What is sealed or opened after the last rest is used without one.
    assert used <= PERCENT / 100 * (took + BURST_S) + 0.1
    # Else no limit would have been missed.
    assert used > 0.17
