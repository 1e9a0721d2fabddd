"""Runs of a standing order on a machine that is carried into another time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tasks.recurring import Head, due_run, timetable
from protocol.codec import to_ms
from protocol.ids import MachineId, OrderId
from protocol.standing import Run, Standing
from tests.fakes.link_server import DAY
from tests.fakes.standing_machine import Machine

EAST, WEST = "Asia/Kolkata", "America/Phoenix"
"""Neither has a summer time: nine o'clock is 03:30Z in one, and 16:00Z in the other."""

ORDER = OrderId("or_" + "0" * 26)
BEGUN = datetime(2026, 5, 1, 12, 10, tzinfo=UTC)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    made.at = (made.at + DAY).replace(hour=12, minute=0)
    return made


@pytest.mark.parametrize(
    ("first", "second", "run_at", "carried_at", "next_at"),
    [
        # The day before, it was nine in the west after the order had come.
        (EAST, WEST, timedelta(hours=16), timedelta(hours=17), timedelta(hours=29)),
        # In the east it was nine before the run that was made in the west.
        (WEST, EAST, timedelta(hours=28, minutes=30), timedelta(hours=29), timedelta(hours=40)),
    ],
)
async def test_what_was_run_is_not_run_again_in_another_zone(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
    run_at: timedelta,
    carried_at: timedelta,
    next_at: timedelta,
) -> None:
    monkeypatch.setenv("TZ", first)
    began = machine.at
    await machine.take(machine.standing(schedule="0 9 * * *"))
    machine.at = began + run_at
    assert await machine.look() == 1
    monkeypatch.setenv("TZ", second)
    machine.at = began + carried_at
    assert await machine.look(2) == 1
    machine.at = began + next_at
    assert await machine.look(2) == 2


@given(
    steps=st.lists(
        st.tuples(
            st.integers(1, 3000),
            st.sampled_from(["UTC", EAST, WEST, "Europe/Berlin", "Pacific/Kiritimati"]),
        ),
        max_size=40,
    ),
    schedule=st.sampled_from(["0 9 * * *", "30 2 * * 1-5", "*/20 * * * *", "0 0 1 * *"]),
)
@settings(max_examples=100)
def test_slots_follow_each_other_whatever_the_zones(
    steps: list[tuple[int, str]], schedule: str
) -> None:
    bounds = Standing(schedule, to_ms(BEGUN + timedelta(days=300)))
    head = Head((0, 0, 0), BEGUN, BEGUN, bounds)
    last: Run | None = None
    now = BEGUN
    for minutes, zone in steps:
        now += timedelta(minutes=minutes)
        times = timetable(bounds, MachineId("mc_" + "0" * 26), ZoneInfo(zone))
        run = due_run(ORDER, head, times, last=last, now=now, latest_seen=BEGUN)
        if run is None or (last is not None and run.slot == last.slot):
            continue
        assert last is None or last.slot < run.slot <= now
        last = run


async def test_a_run_of_a_clock_that_was_ahead_stops_none_of_today(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", EAST)
    await machine.take(machine.standing(schedule="0 9 * * *"))
    machine.at += 20 * DAY
    assert await machine.look() == 1
    machine.at -= 19 * DAY
    assert await machine.look() == 2
