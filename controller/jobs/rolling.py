"""Keep rollouts going: look whenever something may have changed, and act.

Everything true is in the database, so a controller that restarts goes on where it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from controller import clock
from controller.db.database import Database
from controller.jobs.advance import Linked, Terms, advance, look, terms_of, under_way
from controller.jobs.feed import Feed, set_or_timeout
from protocol.errors import SteadError

log = structlog.get_logger()

ROLLOUTS = "rollouts"
"""The topic of the feed that says when to look."""

LOOK_EVERY = timedelta(seconds=15)
PAUSE = timedelta(milliseconds=100)
"""Between two looks, so that a thousand outcomes at once cost a few looks."""

REST_FOR_EACH = timedelta(microseconds=20)
"""A look costs by the number of machines, and so does the rest after it."""


@dataclass(slots=True)
class Rolling:
    """See the module. `linked` says whether a machine holds a link now."""

    db: Database
    feed: Feed
    linked: Linked
    _terms: dict[str, Terms] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)
    """Why a rollout could not be advanced when that was tried last, by job."""

    async def run_forever(self) -> None:
        """Advance every rollout, again and again."""
        with self.feed.listening(ROLLOUTS) as event:
            while True:
                event.clear()
                until = LOOK_EVERY
                try:
                    next_at = await self._round()
                    if next_at is not None:
                        until = min(until, max(PAUSE, next_at - clock.now()))
                except SteadError as error:
                    log.warning("rollouts_not_advanced", reason=str(error))
                except Exception:
                    # A mistake of ours must not end all rollouts for good.
                    log.exception("rollouts_failed_unexpectedly")
                await set_or_timeout(event, until)
                looked_at = sum(len(terms.places) for terms in self._terms.values())
                await asyncio.sleep((PAUSE + REST_FOR_EACH * looked_at).total_seconds())

    async def _round(self) -> datetime | None:
        """Advance every rollout once; when the next pause ends."""
        jobs = await self.db.read(under_way)
        self._terms = {job: terms for job, terms in self._terms.items() if job in jobs}
        self._told = {job: reason for job, reason in self._told.items() if job in jobs}
        for job in jobs:
            try:
                await self._advance(job)
            except SteadError as error:
                # What is wrong with one keeps no other one, least of all another tenant's.
                if self._told.get(job) != str(error):
                    self._told[job] = str(error)
                    log.warning("rollout_not_advanced", job=job, reason=str(error))
            except Exception as error:
                if self._told.get(job) != repr(error):
                    self._told[job] = repr(error)
                    log.exception("rollout_failed_unexpectedly", job=job)
            else:
                self._told.pop(job, None)
        ends = [at for at in (await self.db.read(under_way)).values() if at is not None]
        return min(ends, default=None)

    async def _advance(self, job: str) -> None:
        if job not in self._terms:
            self._terms[job] = await self.db.read(lambda c: terms_of(c, job))
        terms, now = self._terms[job], clock.now()
        if await self.db.read(lambda c: look(c, terms, self.linked, now)) is None:
            return
        released = await self.db.write(lambda c: advance(c, terms, self.linked, now))
        self.feed.wake(job)
        for machine in released:
            self.feed.wake(machine)
