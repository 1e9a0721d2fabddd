"""Cancel another order on this machine: which can be, and what became of it.

What waits for its turn never begins. What runs is told to end: a program is killed with all
that it started, a worker ends itself, unless it is past the point of return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from agent.host import clock
from agent.tasks.entry import Entry, State
from agent.tasks.journal import Journal
from protocol.action import ApplyUpdates, CancelOrder, name_of
from protocol.codec import decode_order
from protocol.errors import Code, NotFoundError, SteadError
from protocol.ids import OrderId, TaskId
from protocol.outcome import Outcome, OutcomeState

ENDS_WITHIN_S = 30.0
_OVER = (State.ENDED, State.ACKNOWLEDGED)


class Running(NamedTuple):
    """A task that has not ended; `off` is done when somebody, who it says, cancels it.

    One that `ends_us` ends the agent too: whoever stops does not wait for it.
    """

    work: asyncio.Task[None]
    off: asyncio.Future[str]
    ends_us: bool = False


async def cancel_order(
    journal: Journal,
    running: Mapping[TaskId, Running],
    keep_end: Callable[[OrderId, Outcome], bool],
    task: TaskId,
    action: CancelOrder,
    by: str,
) -> Outcome:
    """End another order for `task`, whose outcome says how that went."""
    order = OrderId(action.order_id)
    try:
        entry = _to_be_cancelled(journal, order)
        found = running.get(entry.task)
        if found is not None and entry.state is State.ACCEPTED:
            _check_kept(keep_end(order, _before_it_began(entry.task, by, clock.now())))
            found.work.cancel()
        elif found is not None:
            if not found.off.done():
                found.off.set_result(by)
            await asyncio.wait({found.work}, timeout=ENDS_WITHIN_S)
        return _what_became(journal, task, order)
    except SteadError as error:
        return Outcome(task, OutcomeState.FAILED, error.code, str(error))


def _check_kept(is_kept: bool) -> None:
    if not is_kept:
        raise SteadError(
            "that it is cancelled could not be noted: free some space, and cancel it again",
            code=Code.STORE_FULL,
        )


def _to_be_cancelled(journal: Journal, order: OrderId) -> Entry:
    """The order's place in the journal.

    NOT_FOUND when it never came here, PRECONDITION when it is over or must not be cut short.
    """
    entry = journal.of_order(order)
    if entry is None:
        raise NotFoundError(f"this machine has no order {order[:80]!r}")
    if entry.state in _OVER:
        state = journal.outcome_of(entry).state
        raise SteadError(f"it was over before: {state}", code=Code.PRECONDITION)
    # No run of a standing order installs packages.
    action = None if entry.run else decode_order(journal.envelope_of(entry).order).action
    if entry.state is State.STARTED and isinstance(action, ApplyUpdates):
        raise SteadError(
            f"{name_of(action)} is not cut short: packages would be left half installed",
            code=Code.PRECONDITION,
        )
    return entry


def _before_it_began(task: TaskId, by: str, at: datetime) -> Outcome:
    """The outcome of a task that was cancelled while it waited."""
    message = f"cancelled by {by} before it began"
    return Outcome(task, OutcomeState.CANCELLED, message=message, ended_at=at)


def _what_became(journal: Journal, task: TaskId, order: OrderId) -> Outcome:
    """The outcome of the order to cancel, by that of the cancelled one."""
    entry = journal.of_order(order)
    if entry is None or entry.state not in _OVER:
        return Outcome(
            task,
            OutcomeState.FAILED,
            Code.TIMED_OUT,
            f"it has not ended within {ENDS_WITHIN_S:g} s and ends by itself",
        )
    state = journal.outcome_of(entry).state
    if state is OutcomeState.CANCELLED:
        return Outcome(task, OutcomeState.SUCCEEDED)
    return Outcome(
        task, OutcomeState.FAILED, Code.PRECONDITION, f"it came to its end first: {state}"
    )
