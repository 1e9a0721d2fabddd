"""What is cancelled never begins, and what could not be noted is not cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.tasks.cancel import Running, cancel_order
from agent.tasks.entry import State
from agent.tasks.journal import Journal, new_journal
from protocol.action import CancelOrder
from protocol.errors import Code
from protocol.ids import OrderId
from protocol.outcome import Outcome, OutcomeState
from tests.property.test_journal import order, take, task


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    path = tmp_path / "journal"
    path.write_bytes(new_journal())
    journal = Journal(path)
    take(journal, "accept", 1)
    yield journal
    journal.close()


@pytest.mark.parametrize("has_room", [True, False])
async def test_an_order_in_line_is_ended_once_that_stands_in_the_journal(
    journal: Journal, has_room: bool
) -> None:
    waits = asyncio.create_task(asyncio.Event().wait())
    work = asyncio.create_task(_until(waits))
    await asyncio.sleep(0)
    running = {task(1): Running(work, asyncio.get_running_loop().create_future())}

    def keep_end(gone: OrderId, outcome: Outcome) -> bool:
        if has_room:
            journal.end(gone, outcome)
        return has_room

    action = CancelOrder(order(1).id)
    said = await cancel_order(journal, running, keep_end, task(2), action, "ann")
    await asyncio.sleep(0)
    entry = journal.of_order(order(1).id)
    assert entry is not None
    if has_room:
        assert said.state is OutcomeState.SUCCEEDED
        assert entry.state is State.ENDED
    else:
        # It goes on waiting for its turn: an order without a task would have no outcome.
        assert (said.state, said.code) == (OutcomeState.FAILED, Code.STORE_FULL)
        assert entry.state is State.ACCEPTED
    assert bool(work.cancelling()) == has_room
    waits.cancel()
    await asyncio.gather(work, waits, return_exceptions=True)


async def _until(waits: asyncio.Task[bool]) -> None:
    await asyncio.shield(waits)
