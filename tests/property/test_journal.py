"""Laws of the journal: what it promised survives any cut, and damage is never overlooked."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tasks.entry import JournalError, State
from agent.tasks.journal import Journal, new_journal
from protocol.action import RunProgram
from protocol.codec import encode_order, from_ms
from protocol.ids import MachineId, OrderId, TaskId, TenantId, make_id
from protocol.order import Envelope, Order
from protocol.outcome import Outcome, OutcomeState

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MACHINE = MachineId(make_id("mc", at_ms=1, random=bytes(10)))
TENANT = TenantId(make_id("tn", at_ms=1, random=bytes(10)))
STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "start", "end", "acknowledge", "saw"]), st.integers(0, 3)),
    max_size=16,
)


def order(number: int) -> Order:
    return Order(
        OrderId(make_id("or", at_ms=number, random=bytes(10))),
        TENANT,
        (MACHINE,),
        RunProgram(("true",)),
        NOW,
        NOW,
        NOW + timedelta(hours=1),
        timedelta(minutes=1),
        repeatable=bool(number % 2),
    )


def task(number: int) -> TaskId:
    return TaskId(make_id("ts", at_ms=number, random=bytes(10)))


def outcome(number: int) -> Outcome:
    return Outcome(task(number), OutcomeState.SUCCEEDED, result=b'{"a":1}', ended_at=NOW)


def take(journal: Journal, step: str, number: int) -> None:
    """Do a step if the order is where the step may follow."""
    entry = journal.of_order(order(number).id)
    state = None if entry is None else entry.state
    match step, state:
        case "accept", None:
            journal.accept(order(number), task(number), Envelope(encode_order(order(number)), ()))
        case "start", State.ACCEPTED:
            journal.start(order(number).id, NOW)
        case "end", State.STARTED:
            journal.end(order(number).id, outcome(number))
        case "acknowledge", State.ENDED:
            journal.acknowledge(order(number).id)
        case "saw", _:
            journal.saw(NOW + timedelta(days=number))


def picture(journal: Journal) -> dict[str, object]:
    """Everything that a reader of the journal can learn."""
    return {
        entry.order: (
            entry.task,
            entry.state,
            entry.started_at,
            journal.outcome_of(entry) if entry.outcome_place else journal.envelope_of(entry),
        )
        for entry in journal.entries()
    } | {"seen": journal.latest_seen}


def fresh(directory: str) -> Path:
    path = Path(directory) / "journal"
    path.write_bytes(new_journal())
    return path


@given(STEPS)
@settings(max_examples=60)
def test_a_journal_read_again_is_the_journal_that_was_written(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = fresh(directory)
        journal = Journal(path)
        for step, number in steps:
            take(journal, step, number)
        before = picture(journal)
        journal.close()
        again = Journal(path)
        assert picture(again) == before
        again.close()


@given(STEPS, st.data())
@settings(max_examples=60)
def test_a_journal_cut_anywhere_is_the_journal_of_the_last_whole_step(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = fresh(directory)
        journal = Journal(path)
        pictures = {path.stat().st_size: picture(journal)}
        for step, number in steps:
            take(journal, step, number)
            pictures[path.stat().st_size] = picture(journal)
        whole = path.read_bytes()
        cut = data.draw(st.integers(min(pictures), len(whole)))
        path.write_bytes(whole[:cut])
        again = Journal(path)
        assert picture(again) == pictures[max(size for size in pictures if size <= cut)]
        # What was cut short leaves no trace: writing goes on behind the last whole step.
        take(again, "accept", 9)
        last = picture(again)
        again.close()
        third = Journal(path)
        assert picture(third) == last
        third.close()
        journal.close()


@given(STEPS, st.data())
@settings(max_examples=100)
def test_a_flipped_bit_is_always_noticed(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = fresh(directory)
        journal = Journal(path)
        for step, number in steps:
            take(journal, step, number)
        journal.close()
        damaged = bytearray(path.read_bytes())
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(damaged)
        try:
            Journal(path).close()
        except JournalError:
            assert path.read_bytes() == damaged
        else:
            raise AssertionError("a damaged journal was taken for a whole one")


@given(STEPS, st.timedeltas(timedelta(), timedelta(days=60)), st.booleans())
@settings(max_examples=60)
def test_pruning_forgets_only_what_is_acknowledged_and_long_past_its_delivery(
    steps: list[tuple[str, int]], later: timedelta, believed: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = fresh(directory)
        journal = Journal(path)
        for step, number in steps:
            take(journal, step, number)
        now = NOW + later
        if believed:
            journal.saw(now)
        before = picture(journal)
        gone = {
            entry.order
            for entry in journal.entries()
            if entry.state is State.ACKNOWLEDGED
            and min(now, journal.latest_seen) - entry.deliver_by > timedelta(days=30)
        }
        assert journal.prune(now) == len(gone)
        kept = {name: value for name, value in before.items() if name not in gone}
        assert picture(journal) == kept
        take(journal, "accept", 9)
        journal.close()
        again = Journal(path)
        assert picture(again).keys() == kept.keys() | {order(9).id}
        again.close()


def test_an_order_that_may_be_delivered_until_the_end_of_all_calendars_is_kept() -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(fresh(directory))
        last = replace(order(0), deliver_by=from_ms(253_402_300_799_000))
        journal.accept(last, task(0), Envelope(encode_order(last), ()))
        journal.start(last.id, NOW)
        journal.end(last.id, outcome(0))
        journal.acknowledge(last.id)
        journal.saw(NOW)
        assert journal.prune(NOW) == 0
        assert journal.of_order(last.id) is not None
        journal.close()
