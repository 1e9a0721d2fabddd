"""The job desk: where orders become jobs, and where their progress is read.

Everything true is in the database; the feed only says when to look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from cryptography import x509
from sqlalchemy import Connection, Row

from controller import clock
from controller.db.database import Database
from controller.jobs import (
    advance,
    approval,
    policies,
    progress,
    reading,
    signing,
    standing,
    standing_forget,
    standing_views,
    submission,
    views,
)
from controller.jobs.feed import Feed
from controller.jobs.rolling import ROLLOUTS
from controller.jobs.views import JobView, RolloutView
from controller.jobs.watching import Changed, watch
from protocol.action import CancelOrder
from protocol.approval import check_may_order
from protocol.errors import DeniedError, SteadError
from protocol.identity import MachineIdentity, OperatorIdentity, Role
from protocol.ids import TaskId
from protocol.order import Order, Signature
from protocol.outcome import Outcome
from protocol.policy import terms_for
from protocol.standing import Run

log = structlog.get_logger()

SWEEP_EVERY = timedelta(seconds=15)
FORGET_EVERY = timedelta(hours=1)


@dataclass(slots=True)
class JobDesk:
    """See the module."""

    db: Database
    root: x509.Certificate
    feed: Feed = field(default_factory=Feed)

    async def submit(
        self, envelope: bytes, operator: OperatorIdentity, *, propose: bool = False
    ) -> JobView:
        """Make a job of a signed order; durable when this returns."""
        now = clock.now()
        order, signers = submission.read_order(envelope, operator, root=self.root, now=now)
        await self.db.write(
            lambda c: submission.record(
                c, order, envelope, signers, root=self.root, propose=propose, now=now
            )
        )
        self._announce(order)
        return await self.view(order.id, operator)

    async def view(
        self,
        job: str,
        operator: OperatorIdentity,
        *,
        machine: str = "",
        with_results: bool = False,
        with_output: bool = False,
    ) -> JobView:
        """One job as it is now, with all its tasks or that of a machine.

        LIMIT when what is asked for does not fit into one answer.
        """

        def look(connection: Connection) -> JobView:
            row = reading.job_row(connection, operator, job)
            reading.check_size(
                connection, job, machine, with_results=with_results, with_output=with_output
            )
            some = reading.task_rows(connection, [job], machine, with_results=with_results)
            rows = some[job]
            ids = [task.id for task in rows] if with_output else []
            output = [piece for task in ids for piece in reading.output_after(connection, task)]
            envelope = reading.envelope_of(connection, row)
            signed = signing.look(connection, envelope, self.root)
            return JobView(row, rows, output, views.rollouts_of(connection, [job]).get(job), signed)

        return await self.db.read(look)

    async def envelope(self, job: str, operator: OperatorIdentity) -> bytes:
        """The signed order behind a job.

        It may hold secrets in arguments, scripts and input, so that the help desk reads only
        what it signed itself: DENIED for another one.
        """

        def look(connection: Connection) -> bytes:
            row = reading.job_row(connection, operator, job)
            if operator.role is Role.HELPDESK and row.operator != operator.name:
                raise DeniedError(
                    f"{operator.name} is {operator.role} and reads no orders of others whole"
                )
            return reading.envelope_of(connection, row)

        return await self.db.read(look)

    async def list(
        self, operator: OperatorIdentity, wanted: reading.Wanted, *, limit: int, told: views.Told
    ) -> Sequence[JobView]:
        """Jobs, newest first; see `views.listed`."""

        def look(connection: Connection) -> list[JobView]:
            rows = reading.job_rows(connection, operator, wanted, limit=limit)
            return views.listed(connection, rows, wanted.machine, told)

        return await self.db.read(look)

    async def watch(
        self, job: str, operator: OperatorIdentity
    ) -> AsyncIterator[Changed | RolloutView | Row[Any]]:
        """What happens to a job until it is over; see `watching.watch`."""
        await self.db.read(lambda c: reading.job_row(c, operator, job))
        async with aclosing(watch(self.db, self.feed, job)) as events:
            async for event in events:
                yield event

    async def cancel(self, job: str, operator: OperatorIdentity) -> JobView:
        """Cancel what no machine has got yet.

        DENIED for who could neither order that, nor order machines to cancel it.
        """

        def check(connection: Connection) -> None:
            row = reading.job_row(connection, operator, job)
            if row.operator == operator.name and approval.awaits(connection, job):
                return  # whoever proposed something may take it back
            order = advance.order_in(reading.envelope_of(connection, row))
            policy = policies.in_force(connection, order.tenant, self.root)
            if operator.role not in terms_for(CancelOrder(job), policy).roles:
                check_may_order(order.action, operator, policy)

        await self.db.read(check)
        now = clock.now()
        await self.db.write(lambda c: progress.cancel(c, job, operator.name, now))
        self._wake(job)
        return await self.view(job, operator)

    async def approve(self, job: str, given: Signature, operator: OperatorIdentity) -> JobView:
        """Add an operator's signature to an order that waits for one."""
        now = clock.now()

        def act(connection: Connection) -> Order:
            row = reading.job_row(connection, operator, job)
            return approval.approve(connection, row, given, operator, root=self.root, now=now)[0]

        order = await self.db.write(act)
        self._announce(order)
        self.feed.wake(job)
        return await self.view(job, operator)

    async def reject(self, job: str, operator: OperatorIdentity, reason: str) -> JobView:
        """End an order that waits for a signature."""
        now = clock.now()

        def act(connection: Connection) -> None:
            row = reading.job_row(connection, operator, job)
            approval.reject(connection, row, operator, reason, now)

        await self.db.write(act)
        self._wake(job)
        return await self.view(job, operator)

    async def resume(self, job: str, operator: OperatorIdentity) -> JobView:
        """Let a halted rollout go on. The order itself is signed for all its machines."""
        await self.view(job, operator)
        now = clock.now()

        def act(connection: Connection) -> None:
            advance.resume(connection, advance.terms_of(connection, job), operator.name, now)

        await self.db.write(act)
        self._wake(job)
        return await self.view(job, operator)

    async def offers(self, machine: MachineIdentity, *, only_new: bool) -> Sequence[progress.Offer]:
        """What to hand to a machine now; marked as offered before it is handed over."""
        states = ("queued",) if only_new else ("queued", "offered", "running")
        if not only_new:
            # A link was made, which is what a rollout may wait for.
            self.feed.wake(ROLLOUTS)
        found = await self.db.read(lambda c: progress.open_tasks(c, machine, states))
        ids = [offer.task for offer in found]
        if not ids:
            return ()
        now = clock.now()
        offered = await self.db.write(lambda c: progress.mark_offered(c, machine, ids, now))
        for job in set(offered.values()):
            self.feed.wake(job)
        return [offer for offer in found if offer.task in offered]

    async def standing(
        self, operator: OperatorIdentity, wanted: standing_views.Wanted
    ) -> standing_views.Page:
        """Standing orders, newest first, with how their machines stand."""
        now = clock.now()
        return await self.db.read(lambda c: standing_views.listed(c, operator, wanted, now))

    async def ran(
        self,
        machine: MachineIdentity,
        task: str,
        run: Run,
        *,
        started_at: datetime | None,
        next_at: datetime | None,
    ) -> None:
        """A machine began a run of a standing order by itself."""
        now = clock.now()
        self._wake(
            await self.db.write(
                lambda c: standing.note_run(
                    c, machine, task, run, started_at=started_at, next_at=next_at, at=now
                )
            )
        )

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
        job = await self.db.write(
            lambda c: progress.add_output(c, machine, task, sequence, stream, data, now)
        )
        if job is not None:
            self.feed.wake(job)

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
        forgotten_at = None
        while True:
            try:
                for job in await self.db.write(lambda c: progress.sweep(c, clock.now())):
                    self._wake(job)
                now = clock.now()
                if forgotten_at is None or abs(now - forgotten_at) > FORGET_EVERY:
                    await self._forget_runs(now)
                    forgotten_at = now
            except SteadError as error:
                log.warning("sweep_failed", reason=str(error))
            except Exception:
                # A mistake of ours must not keep tasks from their end for good.
                log.exception("sweep_failed_unexpectedly")
            await asyncio.sleep(SWEEP_EVERY.total_seconds())

    async def _forget_runs(self, now: datetime) -> None:
        """Forget old runs of standing orders, a few at a time so that others can write too."""
        while await self.db.write(lambda c: standing_forget.forget(c, now)):
            continue

    def _announce(self, order: Order) -> None:
        if order.rollout is not None:
            self.feed.wake(ROLLOUTS)
            return
        for machine in order.machines:
            self.feed.wake(machine)

    def _wake(self, job: str | None) -> None:
        if job is not None:
            self.feed.wake(job)
            self.feed.wake(ROLLOUTS)
