"""A hostile controller against an agent's own way in: verification and journal, in process."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.config import AgentHome
from agent.host import clock
from agent.link.identity import load_identity
from agent.tasks.believe import load_believed
from agent.tasks.execute import Turns
from agent.tasks.in_force import orders_in_force
from agent.tasks.intake import Intake
from agent.tasks.journal import Journal
from agent.tasks.policy import load_policy
from agent.tasks.revoked import load_revocations
from protocol.codec import decode_order, encode_envelope
from protocol.outcome import Outcome, OutcomeState
from tests.fakes.link_server import Realm, new_task
from tests.fakes.standing_machine import Heard
from tests.faults.forged import IN_FORCE, Forger

SEED = 20261126


@pytest.mark.parametrize(
    ("seed", "orders", "lists"),
    [(SEED, 360, 60), pytest.param(SEED + 1, 10_800, 2_400, marks=pytest.mark.full)],
)
@pytest.mark.timeout(600)
async def test_nothing_that_a_hostile_controller_makes_is_executed(
    tmp_path: Path, seed: int, orders: int, lists: int
) -> None:
    realm, home, heard = Realm(), AgentHome(tmp_path / "agent"), Heard()
    effects = tmp_path / "effects"
    effects.mkdir()
    machine = realm.furnish(home, "127.0.0.1:1")
    known, journal = load_identity(home), Journal(home.journal)
    intake = Intake(
        home,
        lambda: load_believed(home, known),
        journal,
        heard,
        Turns(),
        None,
        lambda: None,
    )
    forger = Forger(realm, machine, effects, seed)
    assert intake.revoked(forger.in_force) == ""
    assert intake.ruled(forger.policy) == ""
    _execute(journal, forger)

    codes: Counter[str] = Counter()
    names = sorted(forger.kinds)
    for number in range(orders):
        task, name = new_task(), names[number % len(names)]
        intake.offered(task, forger.kinds[name]())
        assert not intake.running(), (seed, number, name)
        outcome = heard.outcomes.pop(task)
        assert outcome.state in {OutcomeState.REJECTED, OutcomeState.EXPIRED}, (seed, number, name)
        codes[outcome.code] += 1
    refused = sum(bool(intake.revoked(forger.wrong_list())) for _ in range(lists))
    assert refused == lists
    assert all(intake.ruled(forger.wrong_policy()) for _ in range(lists))
    assert load_policy(home, known.root, machine.tenant).version == IN_FORCE
    assert load_revocations(home, known.root).version == IN_FORCE
    assert journal.latest_seen <= clock.now() + timedelta(seconds=1)

    # The same way in takes what is good: the test would else prove nothing.
    assert not list(effects.iterdir())
    assert not list(orders_in_force(home))
    helpdesk = forger.hal
    goods = (
        forger.signed(forger.ann, revocations_version=IN_FORCE, policy_version=IN_FORCE),
        forger.both(forger.scripted(), forger.ann, forger.bob),
        forger.both(forger.scripted(), helpdesk, forger.ann, forger.bob),
        replace(forger.both(forger.order(), helpdesk, forger.ann), policy=forger.policy),
    )
    for envelope in goods:
        good = new_task()
        intake.offered(good, encode_envelope(envelope))
        [work] = [running.work for running in intake._carrying.running.values()]
        await work
        assert heard.outcomes[good].state is OutcomeState.SUCCEEDED
    assert len(list(effects.iterdir())) == len(goods)
    assert home.journal.read_bytes().count(b'"kind":"accepted"') == 1 + len(goods)
    print(f"\n{orders} orders of {len(names)} kinds and {lists} lists, 0 taken: {dict(codes)}")


def _execute(journal: Journal, forger: Forger) -> None:
    """Have an order in the journal that was executed."""
    order, task = decode_order(forger.executed.order), new_task()
    journal.accept(order, task, forger.executed)
    journal.start(order.id, clock.now())
    journal.end(order.id, Outcome(task, OutcomeState.SUCCEEDED))
