"""Runs that nobody has heard of for long: bounded, and none of them untold."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tasks import untold
from agent.tasks.entry import State
from agent.tasks.journal import Journal, new_journal
from protocol.action import RunProgram
from protocol.codec import to_ms
from protocol.ids import MachineId, OrderId, TaskId, TenantId, make_id
from protocol.order import Order
from protocol.outcome import Outcome, OutcomeState
from protocol.standing import Run, job_of_run
from tests.fakes.link_server import DAY
from tests.fakes.standing_machine import HOUR, Machine

NOW = datetime(2026, 5, 1, tzinfo=UTC)
STANDING = OrderId(make_id("or", at_ms=1, random=bytes(10)))
ORDER = Order(
    STANDING,
    TenantId(make_id("tn", at_ms=1, random=bytes(10))),
    (MachineId(make_id("mc", at_ms=1, random=bytes(10))),),
    RunProgram(("true",)),
    NOW,
    NOW,
    NOW + timedelta(days=400),
    timedelta(minutes=1),
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(untold, "MOST", 8)
    return Machine(tmp_path, monkeypatch)


def summed_in(outcome: Outcome) -> int:
    found = re.search(r"(\d+) runs before it", outcome.message)
    return int(found[1]) if found else 0


async def test_a_machine_that_is_away_keeps_some_runs_and_the_sum_of_the_others(
    machine: Machine,
) -> None:
    await machine.take(machine.standing())
    for hour in range(1, 31):
        machine.at += HOUR
        assert await machine.look() == hour
        runs = [entry for entry in machine.journal.entries() if entry.run is not None]
        assert len(runs) <= 8
    machine.heard.runs.clear()
    machine.heard.outcomes.clear()
    machine.start()
    machine.intake.settle()
    told = [machine.heard.outcomes[task] for task in machine.heard.runs]
    assert len(told) < 8
    assert len(told) + sum(map(summed_in, told)) == 30
    assert max(run.number for run in machine.heard.runs.values()) == 30
    assert len(list(machine.home.output.iterdir())) <= len(told) + 1, "one is the order's own"

    # Slots of which only the sum is known are not run again, wherever the clock stands.
    for hours in (29, 20, 10):
        machine.at -= hours * HOUR
        assert await machine.look() == 30
        machine.at += hours * HOUR
    machine.at += HOUR
    assert await machine.look() == 31


async def test_a_clock_that_was_ahead_for_all_of_them_is_named(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    await machine.take(machine.standing())
    machine.at += 10 * DAY
    for _ in range(9):
        machine.at += HOUR
        await machine.look()
    machine.at -= 10 * DAY
    assert await machine.look(3) == 9
    said = capfd.readouterr().err
    assert said.count("by a clock that was ahead of this one") == 1


async def test_long_results_are_bounded_together(machine: Machine) -> None:
    sizes = {OrderId(f"or_{number}"): 1000 for number in range(7)}
    assert untold.to_sum_up(sizes) == []
    assert len(untold.to_sum_up({**sizes, OrderId("or_7"): 1000})) == 4
    long = dict.fromkeys(sizes, untold.MOST_BYTES)
    assert untold.to_sum_up(long) == list(long)[:-1], "the newest stays, however long it is"


def test_a_cut_at_any_byte_leaves_every_run_in_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that accepts a run is the one that sums others up."""
    monkeypatch.setattr(untold, "MOST", 6)
    path = tmp_path / "journal"
    path.write_bytes(new_journal())
    journal = Journal(path)
    for number in range(1, 7):
        make_run(journal, number, OutcomeState.SUCCEEDED)
    before = path.stat().st_size
    assert accept_run(journal, 7)
    journal.close()
    whole = path.read_bytes()
    for end in range(before, len(whole) + 1):
        path.write_bytes(whole[:end])
        again = Journal(path)
        kept = [entry for entry in again.entries() if entry.state is State.ENDED]
        summed = [entry.untold for entry in again.entries() if entry.untold is not None]
        total = len(kept) + sum(one.counts["succeeded"] for one in summed)
        assert (total, bool(summed)) == (6, end == len(whole))
        again.close()


def accept_run(journal: Journal, number: int) -> list[TaskId]:
    slot = NOW + number * HOUR
    task = TaskId(make_id("ts", at_ms=number, random=bytes(10)))
    order = replace(ORDER, id=job_of_run(STANDING, slot))
    return journal.accept_run(order, task, Run(STANDING, slot, number), ORDER.deliver_by)


def make_run(journal: Journal, number: int, state: OutcomeState) -> list[TaskId]:
    """A run from its beginning to its end; the tasks that it summed up."""
    gone = accept_run(journal, number)
    order = job_of_run(STANDING, NOW + number * HOUR)
    journal.start(order, NOW + number * HOUR)
    task = TaskId(make_id("ts", at_ms=number, random=bytes(10)))
    journal.end(order, Outcome(task, state))
    return gone


STEPS = st.lists(
    st.sampled_from(["run", "run", "run", "acknowledge", "prune", "reopen"]), max_size=40
)


@given(STEPS, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_every_run_is_told_by_itself_or_in_one_sum(steps: list[str], random: object) -> None:
    """Whatever is acknowledged, tidied and started anew between the runs."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patched:
        patched.setattr(untold, "MOST", 5)
        path = Path(directory) / "journal"
        path.write_bytes(new_journal())
        journal, made, heard = Journal(path), Counter[str](), Counter[str]()
        for step in steps:
            waiting = [e for e in journal.entries() if e.run and e.state is State.ENDED]
            assert len(waiting) <= 5
            match step:
                case "run":
                    state = random.choice([OutcomeState.SUCCEEDED, OutcomeState.FAILED])  # type: ignore[attr-defined]
                    gone = make_run(journal, made.total() + 1, state)
                    assert all(journal.of_task(one) is None for one in gone)
                    made[state.value] += 1
                case "acknowledge" if waiting:
                    entry = random.choice(waiting)  # type: ignore[attr-defined]
                    heard[journal.outcome_of(entry).state.value] += 1
                    heard.update(entry.untold.counts if entry.untold else {})
                    journal.acknowledge(entry.order)
                case "prune":
                    journal.saw(NOW + made.total() * HOUR)
                    journal.prune(NOW + made.total() * HOUR)
                case "reopen":
                    journal.close()
                    journal = Journal(path)
        for entry in journal.entries():
            if entry.state is State.ENDED:
                heard[journal.outcome_of(entry).state.value] += 1
                heard.update(entry.untold.counts if entry.untold else {})
        assert heard == made
        until = journal.summed_until(STANDING)
        known = {to_ms(e.run.slot) for e in journal.entries() if e.run}
        for number in range(1, made.total() + 1):
            slot = NOW + number * HOUR
            covered = to_ms(slot) in known or (until is not None and slot <= until)
            last = journal.last_run(STANDING)
            assert covered or (last and last.run and slot < last.run.slot <= journal.latest_seen)
        journal.close()
