"""The job desk: where orders become jobs, and where their progress is read.

Everything true is in the database; the feed only says when to look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from cryptography import x509
from sqlalchemy import Connection, Row

from controller import clock
from controller.db.database import Database
from controller.jobs import progress, reading, submission
from controller.jobs.feed import Feed
from controller.jobs.state import is_over
from protocol.errors import SteadError
from protocol.identity import MachineIdentity, OperatorIdentity
from protocol.ids import TaskId
from protocol.order import Order
from protocol.outcome import Outcome

log = structlog.get_logger()

LOOK_EVERY = timedelta(seconds=5)
"""How long a hint may be lost before somebody looks all the same."""

SWEEP_EVERY = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its tasks, and the output of its tasks where that was asked for."""

    job: Row[Any]
    tasks: Sequence[Row[Any]]
    output: Sequence[Row[Any]] = ()


@dataclass(slots=True)
class JobDesk:
    """See the module."""

    db: Database
    root: x509.Certificate
    feed: Feed = field(default_factory=Feed)

    async def submit(self, envelope: bytes, operator: OperatorIdentity) -> JobView:
        """Make a job of a signed order; durable when this returns."""
        now = clock.now()
        order = submission.read_order(envelope, operator, root=self.root, now=now)
        await self.db.write(lambda c: submission.record(c, order, envelope, operator, now))
        self._announce(order)
        return await self.view(order.id, operator)

    async def view(
        self, job: str, operator: OperatorIdentity, *, with_output: bool = False
    ) -> JobView:
        """One job as it is now."""

        def look(connection: Connection) -> JobView:
            row = reading.job_row(connection, operator, job)
            rows = reading.task_rows(connection, [job])[job]
            ids = [task.id for task in rows] if with_output else []
            return JobView(row, rows, reading.output_after(connection, ids, {}))

        return await self.db.read(look)

    async def list(
        self, operator: OperatorIdentity, *, tenant: str, limit: int
    ) -> Sequence[JobView]:
        """Jobs, newest first."""

        def look(connection: Connection) -> list[JobView]:
            rows = reading.job_rows(connection, operator, tenant=tenant, limit=limit)
            tasks = reading.task_rows(connection, [row.id for row in rows])
            return [JobView(row, tasks[row.id]) for row in rows]

        return await self.db.read(look)

    async def watch(self, job: str, operator: OperatorIdentity) -> AsyncIterator[Row[Any]]:
        """Rows of tasks that changed and of new output, until every task is over."""
        states: dict[str, str] = {}
        seen: dict[str, int] = {}
        with self.feed.listening(job) as event:
            while True:
                event.clear()
                view = await self.view(job, operator)
                output = await self._new_output(view, seen)
                for row in output:
                    seen[row.task_id] = row.seq + 1
                    yield row
                for task in view.tasks:
                    if states.get(task.id) != task.state:
                        states[task.id] = task.state
                        yield task
                if all(is_over(task.state) for task in view.tasks):
                    return
                await _set_or_timeout(event, LOOK_EVERY)

    async def cancel(self, job: str, operator: OperatorIdentity) -> JobView:
        """Cancel what no machine has got yet."""
        await self.view(job, operator)
        now = clock.now()
        await self.db.write(lambda c: progress.cancel(c, job, operator.name, now))
        self.feed.wake(job)
        return await self.view(job, operator)

    async def offers(self, machine: MachineIdentity, *, only_new: bool) -> Sequence[progress.Offer]:
        """What to hand to a machine now; marked as offered before it is handed over."""
        states = ("queued",) if only_new else ("queued", "offered", "running")
        found = await self.db.read(lambda c: progress.open_tasks(c, machine, states))
        ids = [offer.task for offer in found]
        if ids:
            now = clock.now()
            changed = await self.db.write(lambda c: progress.mark_offered(c, machine, ids, now))
            for job in changed:
                self.feed.wake(job)
        return found

    async def started(self, machine: MachineIdentity, task: str, started_at: Any) -> None:
        """A machine began."""
        now = clock.now()
        self._wake(
            await self.db.write(lambda c: progress.mark_running(c, machine, task, started_at, now))
        )

    async def printed(
        self, machine: MachineIdentity, task: str, sequence: int, stream: str, data: bytes
    ) -> None:
        """A task printed something."""
        now = clock.now()
        self._wake(
            await self.db.write(
                lambda c: progress.add_output(c, machine, task, sequence, stream, data, now)
            )
        )

    async def ended(self, machine: MachineIdentity, outcome: Outcome) -> TaskId:
        """A task is over; durable when this returns."""
        now = clock.now()
        self._wake(await self.db.write(lambda c: progress.end(c, machine, outcome, now)))
        return outcome.task

    async def alive(self, machine: MachineIdentity, running: Sequence[str]) -> None:
        """A machine gave a sign of life."""
        now = clock.now()
        await self.db.write(lambda c: progress.renew_leases(c, machine, running, now))

    async def sweep_forever(self) -> None:
        """End what nobody else will end, again and again."""
        while True:
            try:
                for job in await self.db.write(lambda c: progress.sweep(c, clock.now())):
                    self.feed.wake(job)
            except SteadError as error:
                log.warning("sweep_failed", reason=str(error))
            await asyncio.sleep(SWEEP_EVERY.total_seconds())

    async def _new_output(self, view: JobView, seen: Mapping[str, int]) -> Sequence[Row[Any]]:
        ids = [task.id for task in view.tasks if task.started_at is not None]
        return await self.db.read(lambda c: reading.output_after(c, ids, seen))

    def _announce(self, order: Order) -> None:
        for machine in order.machines:
            self.feed.wake(machine)

    def _wake(self, job: str | None) -> None:
        if job is not None:
            self.feed.wake(job)


async def _set_or_timeout(event: asyncio.Event, after: timedelta) -> None:
    """Wait for the event, or for the time when a lost hint is made good."""
    try:
        async with asyncio.timeout(after.total_seconds()):
            await event.wait()
    except TimeoutError:
        return
