"""Standing orders on a machine: taken in, run once in a slot, within bounds, and revoked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tasks import in_force
from agent.tasks.entry import State
from agent.tasks.in_force import KeptOrder, orders_in_force
from agent.tasks.recurring import Head, due_run, timetable
from protocol.action import CancelOrder, RevokeStanding, RunProgram
from protocol.codec import (
    decode_envelope,
    decode_order,
    encode_envelope,
    encode_order,
    to_ms,
)
from protocol.errors import Code
from protocol.ids import MachineId, OrderId
from protocol.order import Envelope, Order, sign
from protocol.outcome import OutcomeState
from protocol.standing import Run, Standing, job_of_run
from tests.fakes.link_server import DAY, Realm
from tests.fakes.standing_machine import HOUR, Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def test_a_standing_order_is_run_once_in_each_slot_by_the_machine_itself(
    machine: Machine,
) -> None:
    taken = await machine.take(machine.standing())
    assert taken.state is OutcomeState.SUCCEEDED
    assert msgspec.json.decode(taken.result)["next_at"].startswith(
        f"{machine.at + HOUR / 2:%Y-%m-%dT%H:%M}"
    )
    assert await machine.look(2) == 0, "the slot in which it was taken in is over"
    for hour in range(1, 4):
        machine.at += HOUR
        assert await machine.look(3) == hour
    numbers = [run.number for run in machine.heard.runs.values()]
    assert numbers == [1, 2, 3]
    states = {machine.heard.outcomes[task].state for task in machine.heard.runs}
    assert states == {OutcomeState.SUCCEEDED}


async def test_what_was_missed_is_caught_up_once(machine: Machine) -> None:
    await machine.take(machine.standing())
    machine.at += 50 * HOUR
    assert await machine.look(3) == 1


async def test_a_restart_runs_no_slot_twice_nor_does_a_clock_set_back_and_ahead(
    machine: Machine,
) -> None:
    await machine.take(machine.standing())
    machine.at += HOUR
    assert await machine.look() == 1
    machine.start()
    machine.intake.settle()
    assert await machine.look() == 1
    machine.at += 3 * HOUR
    assert await machine.look() == 2
    machine.at -= 3 * HOUR
    assert await machine.look() == 2, "that slot was run"
    machine.at += 3 * HOUR
    assert await machine.look() == 2
    machine.at += HOUR
    assert await machine.look() == 3


async def test_a_clock_that_stands_before_a_time_that_was_believed_makes_nothing_due(
    machine: Machine,
) -> None:
    await machine.take(machine.standing())
    machine.intake.saw(machine.at + 5 * HOUR)
    machine.at += 2 * HOUR
    assert await machine.look() == 0
    machine.at += 4 * HOUR
    assert await machine.look() == 1


async def test_no_run_begins_after_the_end_nor_beyond_the_number(machine: Machine) -> None:
    await machine.take(machine.standing(max_runs=2))
    await machine.take(machine.standing(days=1 / 24 * 1.5, schedule="hourly", spread_s=1))
    ran = []
    for _ in range(5):
        machine.at += HOUR
        ran.append(await machine.look())
    assert ran[-1] == ran[2], ran
    by_order: dict[str, list[int]] = {}
    for run in machine.heard.runs.values():
        by_order.setdefault(run.order, []).append(run.number)
    assert sorted(by_order.values()) in ([[1, 2], [1]], [[1], [1, 2]])


async def test_a_run_counts_for_ever_also_when_the_journal_has_been_tidied(
    machine: Machine,
) -> None:
    await machine.take(machine.standing(days=300, max_runs=2))
    for _ in range(2):
        machine.at += HOUR
        await machine.look()
    for task in list(machine.heard.outcomes):
        machine.intake.acknowledged(task)
    machine.at += 100 * DAY
    assert machine.intake.prune() == 0, "no later time was believed yet"
    machine.intake.saw(machine.at)
    assert machine.intake.prune() == 2, "the order itself, and the first run"
    machine.start()
    assert await machine.look() == 2
    [left] = list(machine.journal.entries())
    assert left.run is not None
    assert left.run.number == 2


async def test_a_crash_between_the_note_and_the_run_is_one_run(machine: Machine) -> None:
    await machine.take(machine.standing())
    machine.at += HOUR
    machine.intake.run_due()
    assert [entry.state for entry in machine.journal.entries()][-1] is State.ACCEPTED
    for one in machine.intake._carrying.running.values():
        one.work.cancel()
    await asyncio.gather(
        *(one.work for one in machine.intake._carrying.running.values()), return_exceptions=True
    )
    machine.start()
    machine.intake.settle()
    await machine.settled()
    assert await machine.look(2) == 1


async def test_a_crash_in_a_run_leaves_it_indeterminate_and_not_repeated(machine: Machine) -> None:
    await machine.take(machine.standing())
    machine.at += HOUR
    machine.intake.run_due()
    entry = list(machine.journal.entries())[-1]
    for one in machine.intake._carrying.running.values():
        one.work.cancel()
    machine.journal.start(entry.order, machine.at)
    machine.start()
    machine.intake.settle()
    await machine.settled()
    assert await machine.look(2) == 0
    assert machine.heard.outcomes[entry.task].state is OutcomeState.INDETERMINATE
    assert machine.heard.runs[entry.task].number == 1


async def test_a_revoked_order_is_not_run_and_cannot_be_taken_in_again(machine: Machine) -> None:
    envelope = machine.standing()
    order = decode_order(envelope.order)
    await machine.take(envelope)
    revoking = machine.signed(RevokeStanding(order.id, to_ms(order.deliver_by)))
    done = await machine.take(revoking)
    assert msgspec.json.decode(done.result) == {"was_in_force": True}
    machine.at += 2 * HOUR
    assert await machine.look() == 0
    assert (await machine.take(envelope)).code == Code.REPLAYED
    assert list(orders_in_force(machine.home)) == []


async def test_an_order_that_is_revoked_before_it_comes_is_not_taken_in(machine: Machine) -> None:
    envelope = machine.standing()
    order = decode_order(envelope.order)
    await machine.take(machine.signed(RevokeStanding(order.id, to_ms(order.deliver_by))))
    late = await machine.take(envelope)
    assert (late.state, late.code) == (OutcomeState.FAILED, Code.REVOKED)
    machine.at += 2 * HOUR
    assert await machine.look() == 0


async def test_a_run_that_waits_does_not_begin_once_its_order_is_revoked(machine: Machine) -> None:
    envelope = machine.standing()
    order = decode_order(envelope.order)
    await machine.take(envelope)
    machine.at += HOUR
    machine.intake.run_due()
    in_force.revoke(machine.home, order.id, "bob", machine.at + DAY, past=machine.at)
    await machine.settled()
    [task] = machine.heard.runs
    outcome = machine.heard.outcomes[task]
    assert (outcome.state, outcome.code, machine.ran) == (OutcomeState.REJECTED, Code.REVOKED, 0)


async def test_a_run_is_cancelled_like_any_other_order(machine: Machine) -> None:
    bounds = Standing("0 * * * *", to_ms(machine.at + DAY))
    await machine.take(machine.signed(RunProgram(("sleep", "100")), standing=bounds))
    machine.at += HOUR
    machine.intake.run_due()
    entry = list(machine.journal.entries())[-1]
    while entry.state is not State.STARTED:
        await asyncio.sleep(0.01)
    done = await machine.take(machine.signed(CancelOrder(entry.order)))
    assert done.state is OutcomeState.SUCCEEDED, done
    assert machine.heard.outcomes[entry.task].state is OutcomeState.CANCELLED
    assert await machine.look() == 0


async def test_its_signer_s_revocation_ends_what_came_later_and_leaves_what_was_there(
    machine: Machine,
) -> None:
    await machine.take(machine.standing())
    machine.revoke_operator(machine.ann, machine.at + 2 * HOUR)
    machine.at += HOUR
    assert await machine.look() == 1


async def test_what_a_stolen_key_signed_ends_with_its_revocation(machine: Machine) -> None:
    await machine.take(machine.standing())
    machine.revoke_operator(machine.ann, machine.at - DAY)
    machine.at += HOUR
    assert await machine.look(3) == 0
    [task] = machine.heard.runs
    assert machine.heard.outcomes[task].code == Code.REVOKED
    assert machine.heard.runs[task].number == 0


async def test_what_the_machine_has_come_to_deny_is_not_run_and_told_once_a_slot(
    machine: Machine,
) -> None:
    await machine.take(machine.standing(max_runs=1))
    machine.set(deny=("run_program",))
    machine.at += HOUR
    assert await machine.look(3) == 0
    [task] = machine.heard.runs
    assert machine.heard.outcomes[task].code == Code.DENIED
    machine.set(deny=())
    machine.at += HOUR
    assert await machine.look() == 1, "what was refused is no run"


async def test_a_read_only_machine_goes_on_with_what_was_there_and_takes_nothing_new(
    machine: Machine,
) -> None:
    await machine.take(machine.standing())
    machine.set(read_only=True)
    machine.at += HOUR
    assert await machine.look() == 1
    assert (await machine.take(machine.standing())).code == Code.DENIED
    [order] = orders_in_force(machine.home)
    revoking = machine.signed(RevokeStanding(order, to_ms(machine.at)))
    assert (await machine.take(revoking)).state is OutcomeState.SUCCEEDED


@pytest.mark.parametrize("kind", ["schedule", "program", "end", "by another", "none", "garbage"])
async def test_an_edited_order_is_not_run(machine: Machine, kind: str) -> None:
    envelope = machine.standing()
    order = decode_order(envelope.order)
    await machine.take(envelope)
    path = machine.home.standing / order.id
    assert order.standing is not None
    other = {
        "schedule": replace(order, standing=replace(order.standing, schedule="* * * * *")),
        "program": replace(order, action=RunProgram(("touch", str(machine.effects / "no")))),
        "end": replace(order, standing=replace(order.standing, max_runs=0, name="other")),
        "by another": order,
        "none": replace(order, standing=None),
        "garbage": order,
    }[kind]
    forged = Envelope(encode_order(other), envelope.signatures)
    if kind == "by another":
        stranger = Realm().operator()
        forged = sign(envelope.order, key=stranger.key, certificate=stranger.certificate)
    kept = KeptOrder(machine.at - DAY, encode_envelope(forged))
    data = msgspec.msgpack.encode(kept)
    path.write_bytes(data[:-9] if kind == "garbage" else data)
    machine.at += HOUR
    assert await machine.look(2) == 0
    assert machine.heard.runs == {}
    assert not (machine.effects / "no").exists()


async def test_another_order_s_file_is_not_this_order_s(machine: Machine) -> None:
    first, second = machine.standing(), machine.standing()
    await machine.take(first)
    home = machine.home.standing
    name = decode_order(first.order).id
    other = decode_order(second.order).id
    # As if somebody had put a once signed order under the name of another to run it again.
    (home / other).write_bytes((home / name).read_bytes())
    machine.at += HOUR
    assert await machine.look(2) == 1


async def test_there_are_at_most_a_hundred(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "MOST", 2)
    await machine.take(machine.standing(days=1))
    await machine.take(machine.standing())
    full = await machine.take(machine.standing())
    assert (full.state, full.code) == (OutcomeState.FAILED, Code.LIMIT)
    machine.at += 2 * DAY
    assert (await machine.take(machine.standing())).state is OutcomeState.SUCCEEDED


async def test_a_run_begins_within_the_order_s_windows_and_a_slot_without_one_has_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    machine.at = (machine.at + DAY).replace(hour=12, minute=30)
    script = f"echo x >> {machine.effects}/ran"
    for catch_up in (False, True):
        bounds = Standing("0 */2 * * *", to_ms(machine.at + DAY), name="up" if catch_up else "")
        await machine.take(
            machine.signed(
                RunProgram(("sh", "-c", script)),
                standing=bounds,
                windows=("17:10-17:20", "18:30-18:40"),
                catch_up=catch_up,
            )
        )
    ran = {}
    for minutes in range(0, 8 * 60, 10):
        machine.at = machine.at.replace(hour=12 + (30 + minutes) // 60, minute=(30 + minutes) % 60)
        ran[f"{machine.at:%H:%M}"] = await machine.look()
    # One of them only in windows, the other also where its slot has none.
    assert (ran["13:50"], ran["14:00"], ran["17:00"], ran["17:10"]) == (0, 1, 1, 3)
    assert (ran["18:20"], ran["18:30"], ran["20:10"]) == (3, 5, 6)
    assert {outcome.state for outcome in machine.heard.outcomes.values()} == {
        OutcomeState.SUCCEEDED
    }


async def test_a_run_that_takes_longer_than_a_slot_is_not_begun_twice(machine: Machine) -> None:
    await machine.take(machine.standing())
    machine.at += HOUR
    machine.intake.run_due()
    machine.at += HOUR
    machine.intake.run_due()
    await machine.settled()
    assert len(machine.heard.runs) == 1


MINUTES = st.integers(-3000, 3000)


@given(moves=st.lists(MINUTES, max_size=30), schedule=st.sampled_from(["hourly", "*/20 * * * *"]))
@settings(max_examples=100)
def test_whatever_the_clock_does_no_slot_is_due_twice(moves: list[int], schedule: str) -> None:
    begun = datetime(2026, 5, 1, 12, 10, tzinfo=UTC)
    bounds = Standing(schedule, to_ms(begun + timedelta(days=3)))
    order = Order(
        OrderId("or_" + "0" * 26),
        machines=(MachineId("mc_" + "0" * 26),),
        tenant="tn",  # type: ignore[arg-type]
        action=RunProgram(("true",)),
        issued_at=begun,
        not_before=begun,
        deliver_by=begun + DAY,
        timeout=HOUR,
        standing=bounds,
    )
    times = timetable(bounds, order.machines[0], UTC)
    head = Head((0, 0, 0), begun, begun, bounds)
    made: set[str] = set()
    slots: list[datetime] = []
    last: Run | None = None
    now = begun
    for move in moves:
        now += timedelta(minutes=move)
        run = due_run(order.id, head, times, last=last, now=now, latest_seen=begun)
        if run is not None and job_of_run(order.id, run.slot) not in made:
            made.add(job_of_run(order.id, run.slot))
            slots.append(run.slot)
            last = run
            assert begun - timedelta(minutes=5) <= now < bounds.ends_at
    assert len(set(slots)) == len(slots)
    assert times.begin(begun) not in slots


def test_what_is_over_by_a_time_that_was_believed_is_over() -> None:
    """Also for a clock that was set back since, by less than would make it say nothing."""
    begun = datetime(2026, 5, 1, 12, 10, tzinfo=UTC)
    bounds = Standing("hourly", to_ms(begun + DAY), spread_s=1)
    order, machine = OrderId("or_" + "0" * 26), MachineId("mc_" + "0" * 26)
    times = timetable(bounds, machine, UTC)
    head = Head((0, 0, 0), begun, begun, bounds)
    before = bounds.ends_at - timedelta(minutes=2)
    for latest_seen, is_due in ((before, True), (bounds.ends_at, False)):
        run = due_run(order, head, times, last=None, now=before, latest_seen=latest_seen)
        assert (run is not None) is is_due


def test_an_envelope_kept_is_the_envelope_that_came(machine: Machine) -> None:
    envelope = machine.standing()
    order = decode_order(envelope.order)
    in_force.take_in(machine.home, order, envelope, now=machine.at, past=machine.at)
    kept = in_force.load_order(machine.home, order.id)
    assert decode_envelope(kept.envelope) == envelope
    assert (machine.home.standing / order.id).stat().st_mode & 0o777 == 0o600
