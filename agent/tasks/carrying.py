"""See an order that was accepted through to its one outcome.

It waits for its turn and its windows, is checked again, started in the journal, executed,
and ended in the journal; see `agent.tasks.intake` for the steps before and after.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta

from agent.config import AgentHome
from agent.host import clock, log
from agent.tasks.cancel import Running, cancel_order
from agent.tasks.entry import JournalError
from agent.tasks.execute import Executor, Turns
from agent.tasks.journal import Journal
from agent.tasks.keep import is_kept, keep
from agent.tasks.opening import turn_of
from agent.tasks.recurring import Recurring
from agent.tasks.stored import Stored
from agent.tasks.verify import Believed, verify_standing
from protocol.action import CancelOrder, ChangeVaultSecret, ControlPower, Rehome
from protocol.errors import Code, SteadError
from protocol.ids import OrderId, TaskId
from protocol.order import Envelope, Order
from protocol.outcome import Outcome, OutcomeState, rejected

JOURNAL_RETRY_S = 5.0


class Carrying:
    """The orders that are under way. For one event loop.

    `running` are the tasks that were taken in and have not ended, waiting ones included.
    `greet_again` is called when this machine can prove its keys in another way than it did.
    """

    def __init__(
        self,
        home: AgentHome,
        believed: Callable[[], Believed],
        journal: Journal,
        stored: Stored,
        turns: Turns,
        executor: Executor,
        recurring: Recurring,
        greet_again: Callable[[], None],
    ) -> None:
        self._home = home
        self._believed = believed
        self._journal = journal
        self._stored = stored
        self._turns = turns
        self._executor = executor
        self._recurring = recurring
        self._greet_again = greet_again
        self._moving: set[TaskId] = set()
        self.running: dict[TaskId, Running] = {}

    def told(self, task: TaskId) -> None:
        """The controller has the outcome of a task."""
        if task in self._moving:
            # Not before its outcome is told: the new controller may not know the task.
            self._moving.discard(task)
            self._greet_again()

    def begin(self, order: Order, envelope: Envelope, task: TaskId) -> None:
        """Begin to see an order through; it is in the journal."""
        work = asyncio.create_task(self._guarded(order, envelope, task), name=task)
        off = asyncio.get_running_loop().create_future()
        self.running[task] = Running(work, off, isinstance(order.action, ControlPower))
        work.add_done_callback(lambda _: self.running.pop(task, None))

    def _check_again(self, order: OrderId, envelope: Envelope) -> None:
        """Raise `SteadError` for what has come to be denied or revoked while it waited."""
        entry = self._journal.of_order(order)
        if entry is not None and entry.run is not None:
            self._recurring.again(entry.run)
        else:
            verify_standing(envelope, self._believed())

    async def _guarded(self, order: Order, envelope: Envelope, task: TaskId) -> None:
        try:
            await self._see_through(order, envelope, task)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not cost the outcome
            log.warning("task_failed_unexpectedly", task=task, error=repr(error))
            outcome = Outcome(
                task,
                OutcomeState.INDETERMINATE,
                code=Code.INTERNAL,
                message=f"the agent failed while it executed this: {error!r}",
                ended_at=clock.now(),
            )
            await self._ended(order.id, outcome)

    async def _see_through(self, order: Order, envelope: Envelope, task: TaskId) -> None:
        async with turn_of(self._turns, order, lambda: self._journal.latest_seen) as late:
            now = clock.now()
            if late is not None:
                await self._ended(order.id, rejected(task, late, now))
                return
            try:
                self._check_again(order.id, envelope)
            except SteadError as error:
                await self._ended(order.id, rejected(task, error, now))
                return
            try:
                self._journal.start(order.id, now)
            except JournalError as error:
                log.warning("order_not_started", task=task, reason=str(error))
                if self._journal.problem is None:
                    await self._ended(order.id, rejected(task, error, now))
                return
            outcome = await self._executed(order, envelope, task, now)
        if isinstance(order.action, Rehome):
            self._moving.add(task)
        await self._ended(order.id, outcome)
        if isinstance(order.action, ChangeVaultSecret):
            self._greet_again()

    async def _executed(
        self, order: Order, envelope: Envelope, task: TaskId, now: datetime
    ) -> Outcome:
        try:
            spool = self._stored.spool(order.id, task)
        except SteadError as error:
            return rejected(task, error, now)
        self._stored.telling.started(task, now, spool)
        if is_kept(order):
            try:
                believed = self._believed()
                verified = verify_standing(envelope, believed)
                machine = believed.identity.machine
                past = self._journal.past(now)
                outcome = keep(self._home, task, verified, machine, now=now, past=past)
            except SteadError as error:
                outcome = Outcome(task, OutcomeState.FAILED, error.code, str(error))
        elif isinstance(order.action, CancelOrder):
            by = verify_standing(envelope, self._believed()).signer
            outcome = await cancel_order(
                self._journal, self.running, self.keep_end, task, order.action, by
            )
        else:
            spool.on_append = self._stored.telling.printed
            outcome = await self._executor.execute(
                task,
                order.action,
                limit=order.timeout,
                spool=spool,
                cancelled=self.running[task].off,
            )
        return dataclasses.replace(
            outcome, started_at=now, ended_at=clock.now(), output_truncated=spool.truncated
        )

    async def _ended(self, order: OrderId, outcome: Outcome) -> None:
        while not self.keep_end(order, outcome):
            if self._journal.problem is not None:
                return  # the next start finds an order that was begun, and says so
            await asyncio.sleep(JOURNAL_RETRY_S)

    def keep_end(self, order: OrderId, outcome: Outcome) -> bool:
        """Keep an outcome and tell it; false when it could not be kept just now."""
        try:
            self._journal.end(order, outcome)
        except JournalError as error:
            log.warning("outcome_not_kept", task=outcome.task, reason=str(error))
            return False
        log.info("task_ended", task=outcome.task, state=outcome.state, code=outcome.code)
        entry = self._journal.of_order(order)
        assert entry is not None
        self._stored.tell_end(entry)
        return True

    async def stop(self, patience: timedelta) -> None:
        """Give what runs a moment to end, and then end it."""
        work = {running.work for running in self.running.values()}
        awaited = {running.work for running in self.running.values() if not running.ends_us}
        if awaited:
            await asyncio.wait(awaited, timeout=patience.total_seconds())
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
