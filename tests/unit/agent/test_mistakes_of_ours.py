"""What we did not think of costs one order or one chore, and never the link to all others."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from agent import routine
from agent.config import AgentHome
from agent.link.identity import load_identity
from agent.routine import kept_up
from agent.tasks import intake as intake_module
from agent.tasks.believe import load_believed
from agent.tasks.execute import Turns
from agent.tasks.intake import Intake
from agent.tasks.journal import Journal
from protocol.errors import Code
from protocol.outcome import OutcomeState
from tests.fakes.link_server import Realm, new_task
from tests.fakes.standing_machine import Heard


async def test_a_chore_that_failed_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routine, "CHORE_AGAIN", timedelta())
    done, tries = asyncio.Event(), 0

    async def chore() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OverflowError("date value out of range")
        done.set()

    await kept_up(chore)
    assert done.is_set()


async def test_an_order_that_nothing_was_prepared_for_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, heard = AgentHome(tmp_path / "agent"), Heard()
    Realm().furnish(home, "127.0.0.1:1")
    known, journal = load_identity(home), Journal(home.journal)
    believed = load_believed(home, known)
    intake = Intake(home, lambda: believed, journal, heard, Turns(), None, lambda: None)

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(intake_module, "verify", fails)
    task = new_task()
    intake.offered(task, b"")
    outcome = heard.outcomes[task]
    assert (outcome.state, outcome.code) == (OutcomeState.REJECTED, Code.INTERNAL)
    assert not list(journal.entries())
    journal.close()
