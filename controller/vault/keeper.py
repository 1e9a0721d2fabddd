"""Forget by the rules and collect, day after day, and collect when somebody asks.

One collection at a time, on a thread of its own, in slices of a fifth of a second; between
two it rests as long as the rate says. Who stops it, by leaving or by ending the program,
leaves a generation that the next one undoes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection, func, select

from controller.db.database import Database
from controller.db.schema import generations, tenants
from controller.vault import freezing
from controller.vault.collect.collector import Collector
from controller.vault.collect.condemn import Collected, Step
from controller.vault.forget import keeping
from protocol.errors import SteadError

log = structlog.get_logger()

EVERY = timedelta(days=1)
STEADY_BYTES_S = 64 * 1024 * 1024
"""The rate of a collection that nobody asked for."""
_FIRST_S = 30.0
_LOOK_S = 600.0
_SLICE_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a tenant's collection is; `done` holds its figures so far."""

    tenant: str
    step: Step
    done: Collected
    is_finished: bool = False


class Keeper:
    """See the module; `run_forever` is the daily one."""

    def __init__(self, collector: Collector, db: Database, *, now: Callable[[], datetime]) -> None:
        self._collector = collector
        self._db = db
        self._now = now
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vault-collect")

    async def run_forever(self) -> None:
        """Keep every tenant's vault, once a day, for as long as this is not cancelled."""
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self.keep_all()
            except SteadError as error:
                log.warning("keeping_stopped_for_now", reason=str(error))
            except Exception:
                # A mistake of ours must not end it for good.
                log.exception("keeping_failed_unexpectedly")
            await asyncio.sleep(_LOOK_S)

    async def keep_all(self) -> None:
        """Forget and collect for every tenant whose last collection is a day old."""
        for tenant in await self._db.read(partial(_due, before=self._now() - EVERY)):
            try:
                await self._keep(tenant)
            except SteadError as error:
                log.warning("collection_put_off", tenant=tenant, reason=str(error))
            except Exception:
                # What fails of one tenant's keeps no other tenant's.
                log.exception("keeping_failed_unexpectedly", tenant=tenant)

    async def forget_by_rules(self, machine: freezing.Machine, *, actor: str) -> list[str]:
        """See `keeping.forget_by_rules`; `ClockLeaptError` by a clock that was set ahead."""
        at = self._collector.steady.now()
        act = partial(keeping.forget_by_rules, machine=machine, actor=actor, at=at)
        return await self._db.write(act)

    async def _keep(self, tenant: str) -> None:
        for machine in await self._db.read(partial(keeping.machines_with_points, tenant=tenant)):
            gone = await self.forget_by_rules(machine, actor=freezing.CONTROLLER)
            if gone:
                log.info("points_forgotten", machine=machine.id, count=len(gone))
        async for progress in self.collect(tenant, bytes_per_s=STEADY_BYTES_S):
            if progress.is_finished:
                done = progress.done
                log.info(
                    "vault_collected",
                    tenant=tenant,
                    condemned_bytes=done.condemned_bytes,
                    freed_bytes=done.swept.freed_bytes,
                )

    async def collect(
        self,
        tenant: str,
        *,
        dry_run: bool = False,
        accept_losses: bool = False,
        bytes_per_s: int = 0,
    ) -> AsyncGenerator[Progress, None]:
        """Collect one tenant; yields a few times a second, and once more at the end."""
        async with self._turn:
            done = Collected()
            steps = self._collector.run(tenant, done, dry_run=dry_run, accept_losses=accept_losses)
            last = Step("begin", 0)
            try:
                while True:
                    began = time.monotonic()
                    some = await self._in_thread(partial(_slice, steps))
                    if not some:
                        break
                    last = some[-1]
                    yield Progress(tenant, last, done)
                    moved = sum(step.moved_bytes for step in some)
                    if bytes_per_s:
                        await asyncio.sleep(
                            max(0.0, moved / bytes_per_s - (time.monotonic() - began))
                        )
            finally:
                await asyncio.shield(self._in_thread(partial(_end, steps)))
            yield Progress(tenant, last, done, is_finished=True)

    async def _in_thread(self, act: Callable[[], list[Step]]) -> list[Step]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    def close(self) -> None:
        """End the thread, once its slice is over."""
        self._thread.shutdown()


def _slice(steps: Iterator[Step]) -> list[Step]:
    """Steps for a fifth of a second; none at the end."""
    until = time.monotonic() + _SLICE_S
    some: list[Step] = []
    while time.monotonic() < until:
        step = next(steps, None)
        if step is None:
            break
        some.append(step)
    return some


def _end(steps: Iterator[Step]) -> list[Step]:
    close = getattr(steps, "close", None)
    if close is not None:
        close()
    return []


def _due(connection: Connection, before: datetime) -> list[str]:
    begun = connection.execute(
        select(generations.c.tenant_id, func.max(generations.c.began_at).label("at")).group_by(
            generations.c.tenant_id
        )
    )
    last = {row.tenant_id: row.at for row in begun}
    every = connection.scalars(select(tenants.c.id))
    return [one for one in every if one not in last or last[one] <= before]
