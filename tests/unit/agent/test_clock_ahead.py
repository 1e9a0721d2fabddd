"""A clock that ran ahead for a while: nothing that was done is forgotten, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.tasks.in_force import orders_in_force
from protocol.action import RevokeStanding, RunProgram
from protocol.codec import decode_order, to_ms
from protocol.errors import Code
from protocol.outcome import OutcomeState
from tests.fakes.link_server import DAY
from tests.fakes.standing_machine import HOUR, Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    made.ann = made.realm.operator(life=400 * DAY)
    return made


def program(machine: Machine) -> RunProgram:
    return RunProgram(("sh", "-c", f"echo x >> {machine.effects}/ran"))


async def test_an_order_that_was_executed_is_not_executed_again(machine: Machine) -> None:
    envelope = machine.signed(program(machine))
    await machine.take(envelope)
    for task in list(machine.heard.outcomes):
        machine.intake.acknowledged(task)
    machine.at += 100 * DAY
    machine.intake.prune()
    machine.at -= 100 * DAY
    assert (await machine.take(envelope)).code == Code.REPLAYED
    assert machine.ran == 1


async def test_a_revocation_is_remembered_that_came_before_its_order(machine: Machine) -> None:
    envelope = machine.standing()
    order = decode_order(envelope.order)
    await machine.take(machine.signed(RevokeStanding(order.id, to_ms(order.deliver_by))))
    later = machine.standing(days=300)
    long = machine.signed(
        program(machine),
        standing=decode_order(later.order).standing,
        deliver_by=machine.at + 300 * DAY,
    )
    machine.at += 100 * DAY
    assert (await machine.take(long)).state is OutcomeState.SUCCEEDED
    machine.at -= 100 * DAY
    late = await machine.take(envelope)
    assert (late.state, late.code) == (OutcomeState.FAILED, Code.REVOKED)


async def test_a_standing_order_goes_on(machine: Machine) -> None:
    await machine.take(machine.standing(days=30))
    long = machine.signed(
        RevokeStanding("or_" + "0" * 26, to_ms(machine.at)), deliver_by=machine.at + 300 * DAY
    )
    machine.at += 100 * DAY
    assert (await machine.take(long)).state is OutcomeState.SUCCEEDED
    machine.at -= 100 * DAY
    assert len(list(orders_in_force(machine.home))) == 1
    machine.at += HOUR
    assert await machine.look() == 1
