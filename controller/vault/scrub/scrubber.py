"""Look at everything that is stored, all the time, while the controller runs.

One thread looks at one thing at a time (`controller.vault.scrub.look`) and notes how far it is,
so a restart goes on there. The steady rounds are paced by bytes; what somebody was given
wrong bytes of, and what could not be read before, goes first.

Where more than `BREAKER` packs are damaged in a day no more are mended: then something
else may be wrong, such as the controller's memory, and an operator has to look.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from controller.db.database import Database
from controller.store.store import ObjectStore
from controller.vault.check import Fault
from controller.vault.claims import Claims
from controller.vault.keys import PackKey, parse_key
from controller.vault.scrub import rounds
from controller.vault.scrub.health import Health, health
from controller.vault.scrub.look import Look, Seen
from controller.vault.scrub.mend import finish, name_hits, note_incomplete, settle_losses
from controller.vault.scrub.pace import RETRY, SPAN, most_urgent, rest_s
from controller.vault.scrub.rounds import ORDERED, STEADY, Counts, Position
from controller.vault.scrub.samples import sample, some_points
from protocol.errors import SteadError
from protocol.ids import TenantId
from protocol.vault.pack import PackId

log = structlog.get_logger()

T = TypeVar("T")
BREAKER = 16
BREAKER_SPAN = timedelta(days=1)
"""So many packs of a tenant are put aside by itself in a day, and no more."""
_SAMPLES = 256
_NAP_S = 60.0
_TROUBLE_S = 300.0
_SAVED_EVERY_S = 1.0
_TELL_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ordered scrub or a check is; `faults` are those found since the last one."""

    counts: Counts
    total_bytes: int
    faults: list[Fault]
    damages: list[int]
    is_done: bool = False


class Scrub:
    """See the module. `run_forever` is the steady one; the others are on request."""

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        claims: Claims,
        *,
        now: Callable[[], datetime],
        span: timedelta = SPAN,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._db = db
        self._claims = claims
        self._now = now
        self._stopping = threading.Event()
        self._look = Look(store, db, claims, now=now, stopping=self._stopping)
        self._span = span
        self._sleep = sleep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vault-scrub")
        self._suspects: dict[PackKey, None] = {}
        self._samples: deque[tuple[str, str]] = deque(maxlen=_SAMPLES)
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run_forever(self) -> None:
        """Scrub every tenant once in a span, for as long as this is not cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._run()
        finally:
            self._loop = None

    async def _run(self) -> None:
        while True:
            try:
                await self._in_thread(
                    partial(
                        finish,
                        self._store,
                        self._db,
                        self._claims,
                        self._now(),
                        stopping=self._stopping,
                    )
                )
                while True:
                    await self._rest(await self._in_thread(self._step))
            except SteadError as error:
                log.warning("scrub_stopped_for_now", reason=str(error))
            except Exception:
                # A mistake of ours must not end scrubbing for good.
                log.exception("scrub_failed_unexpectedly")
            await self._rest(_TROUBLE_S)

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        if (self._suspects or self._samples) and seconds < _TROUBLE_S:
            return
        # Not `wait_for`: it forgets a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def suspect(self, tenant: str, pack: str) -> None:
        """Look at this pack next: somebody was given wrong bytes of it."""
        self._suspects[PackKey(TenantId(tenant), PackId(pack))] = None
        self._nudge()

    def sample(self, tenant: str, point: str = "") -> None:
        """Look soon whether this restore point, or a few of the tenant's, are complete.

        Any thread may ask.
        """
        self._samples.append((tenant, point))
        self._nudge()

    def _nudge(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def status(self, tenants: Sequence[str]) -> list[Health]:
        """What is known of the vaults of these tenants."""
        now = self._now()
        for tenant in tenants:
            await asyncio.to_thread(_settle, self._db, tenant, now)
        return [await self._db.read(partial(health, tenant=one)) for one in tenants]

    async def ordered(
        self, tenants: Sequence[str], *, mend_all: bool, bytes_per_s: int = 0
    ) -> AsyncGenerator[Progress, None]:
        """Look at everything of these tenants now; without `mend_all` nothing is changed.

        Yields a few times a second, and once more at the end. With `bytes_per_s` it rests
        after each pack, for as long as that rate says.
        """
        work = _Ordered(self._look, self._db, self._now, tenants, mend_all)
        total = await self._db.read(work.total)
        told = time.monotonic()
        while True:
            began = time.monotonic()
            seen_bytes = await self._in_thread(work.step)
            if seen_bytes is None:
                break
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                yield work.progress(total)
            if bytes_per_s:
                await self._sleep(rest_s(seen_bytes, time.monotonic() - began, bytes_per_s))
        yield work.progress(total, is_done=True)

    def close(self) -> None:
        """End the thread, once the pack that it looks at is looked at."""
        self._stopping.set()
        self._thread.shutdown(cancel_futures=True)

    async def _in_thread(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    def _step(self) -> float:
        """Look at one thing; how many seconds to rest before the next."""
        now = self._now()
        self._take_up_unread(now)
        if self._suspects:
            named, _ = self._suspects.popitem()
            self._look.at_pack(named, may_mend=self._may_mend(named.tenant, now))
            return 0.0
        if self._samples:
            self._sample(*self._samples.popleft(), now)
            return 0.0
        found = most_urgent(self._db.read_now(rounds.open_rounds), now, self._span)
        if found is None:
            return _NAP_S
        first, wait = found
        if wait > timedelta():
            return min(wait.total_seconds(), _NAP_S)
        began = time.monotonic()
        one = self._db.write_now(partial(rounds.take_up, tenant=first.tenant, kind=STEADY, at=now))
        seen, position = self._look.after(
            one.tenant, one.position, may_mend=self._may_mend(one.tenant, now)
        )
        ended = None if position is not None else self._now()
        self._db.write_now(
            partial(
                rounds.advance,
                one=one,
                position=position or one.position,
                seen=seen.counts,
                ended_at=ended,
            )
        )
        if ended is not None:
            end_round(self._db, one.tenant, ended)
        return rest_s(seen.counts.bytes, time.monotonic() - began)

    def _may_mend(self, tenant: str, now: datetime) -> bool:
        since = now - BREAKER_SPAN
        return self._db.read_now(partial(rounds.damages_since, tenant=tenant, at=since)) < BREAKER

    def _sample(self, tenant: str, point: str, now: datetime) -> None:
        _settle(self._db, tenant, now)
        seed = random.Random(os.urandom(16))  # noqa: S311 - a sample, no secret
        for name, root in self._db.read_now(partial(some_points, tenant=tenant, point=point)):
            found = sample(self._store, self._db, tenant, name, root, seed)
            self._suspects.update(dict.fromkeys(found.suspects))
            if not found.missing:
                continue
            act = partial(
                note_incomplete, tenant=tenant, point=name, missing=found.missing, now=now
            )
            damage = self._db.write_now(act)
            if damage is not None:
                log.error("restore_point_incomplete", tenant=tenant, point=name)
                name_hits(self._store, self._db, tenant, damage, now, self._stopping)

    def _take_up_unread(self, now: datetime) -> None:
        for key in self._db.read_now(partial(rounds.to_try_again, before=now - RETRY)):
            named = parse_key(key)
            if isinstance(named, PackKey):
                self._suspects[named] = None


def end_round(db: Database, tenant: str, at: datetime) -> None:
    """Everything of a tenant was looked at."""
    _settle(db, tenant, at)
    log.info("scrub_round_ended", tenant=tenant)


def _settle(db: Database, tenant: str, now: datetime) -> None:
    """See `settle_losses`; a write only where there is something to settle."""
    if db.read_now(partial(rounds.has_losses, tenant=tenant)):
        db.write_now(partial(settle_losses, tenant=tenant, now=now))


class _Ordered:
    """One walk over everything of some tenants. `step` is called in the scrub's thread."""

    def __init__(
        self,
        look: Look,
        db: Database,
        now: Callable[[], datetime],
        tenants: Sequence[str],
        mend_all: bool,
    ) -> None:
        self._look = look
        self._db = db
        self._now = now
        self._waiting = list(reversed(tenants))
        self._tenants = list(tenants)
        self._mend = mend_all
        self._counts = Counts()
        self._fresh = Seen()
        self._round: rounds.OpenRound | None = None
        self._tenant = ""
        self._position: Position | None = None
        self._unsaved = Counts()
        self._saved_at = time.monotonic()

    def total(self, connection: Connection) -> int:
        """The bytes of all packs that it will look at."""
        return rounds.total_bytes(connection, self._tenants)

    def step(self) -> int | None:
        """Look at one thing; the bytes of it, None when there is nothing left."""
        if self._position is None:
            if not self._waiting:
                return None
            self._begin(self._waiting.pop())
        assert self._position is not None
        seen, position = self._look.after(
            self._tenant, self._position, may_mend=self._mend, read_only=not self._mend
        )
        self._counts.add(seen.counts)
        self._unsaved.add(seen.counts)
        self._fresh.add(seen)
        self._save(position)
        self._position = position
        return seen.counts.bytes

    def progress(self, total: int, *, is_done: bool = False) -> Progress:
        """How far it is, with what was found since the last time."""
        fresh, self._fresh = self._fresh, Seen()
        counts = Counts()
        counts.add(self._counts)
        return Progress(counts, total, fresh.faults, fresh.damages, is_done)

    def _begin(self, tenant: str) -> None:
        self._tenant, self._position = tenant, Position()
        if self._mend:
            self._db.write_now(partial(rounds.abandon, tenant=tenant, kind=ORDERED))
            self._round = self._db.write_now(
                partial(rounds.take_up, tenant=tenant, kind=ORDERED, at=self._now())
            )

    def _save(self, position: Position | None) -> None:
        if self._round is None:
            return
        now = time.monotonic()
        if position is not None and now - self._saved_at < _SAVED_EVERY_S:
            return
        self._saved_at = now
        ended = None if position is not None else self._now()
        self._db.write_now(
            partial(
                rounds.advance,
                one=self._round,
                position=position or Position(True),
                seen=self._unsaved,
                ended_at=ended,
            )
        )
        self._unsaved = Counts()
        if ended is not None:
            end_round(self._db, self._tenant, ended)
