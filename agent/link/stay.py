"""Stay connected: renew, connect, talk, find out why it ended, wait, begin again.

A machine that is not wanted (revoked, unknown) parks: it asks again every few minutes
and says so, since the controller may change its mind.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Protocol

import grpc

from agent.config import AgentHome, Settings
from agent.host import clock, log
from agent.link import backoff
from agent.link.going_back import go_back
from agent.link.identity import Credentials, load_identity
from agent.link.outage import explained
from agent.link.outbox import Outbox
from agent.link.ratchet import keep_token, load_holder
from agent.link.rehome import RETRY_S, arrived, where_to
from agent.link.rekey import rekey
from agent.link.renew import check_clock, is_expired, renew, renewal_time
from agent.link.stream import Drained, Listener, Stream
from protocol.errors import Code, SteadError
from protocol.tls import NotAcceptedError, channel_options
from protocol.v1 import link_pb2

PARKING = frozenset(
    {
        Code.REVOKED,
        Code.RETIRED,
        Code.PARKED,
        Code.UNKNOWN_MACHINE,
        Code.UPGRADE_REQUIRED,
        Code.UNAUTHENTICATED,
        Code.DENIED,
        Code.EXPIRED,
        Code.PRECONDITION,
    }
)
DOUBTED_AFTER = 3
"""So many attempts in a row that the controller's TLS did not accept, and the certificate may be
the reason: one was made that an agent believes and no TLS takes, or this machine's was spoilt."""

DOUBTED_PAUSE_S = 3600.0
"""Between two renewals for that reason: it may also be a controller that is overloaded."""

RENEWAL_PAUSE_S = 600.0
"""Between two attempts to renew, whatever the certificate says that came of the first."""

LOOK_AT_CLOCK_S = 2.0
"""While a machine waits after a failure, its clock is looked at so often."""

STEPPED_S = 30.0
"""A wall clock that leaves the monotonic one by more than this was set, or the machine slept."""


class LinkState(StrEnum):
    """How the link is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class LinkReport:
    """How the link is, and why; `again_at` is when the next attempt will be made."""

    state: LinkState
    since: datetime
    reason: str = ""
    code: str = ""
    again_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection ended, and how long it had been one.

    `unaccepted`: it came to nothing although the right controller answered.
    """

    code: Code
    reason: str
    lasted: timedelta
    unaccepted: bool = False


class Told(Listener, Protocol):
    """A listener who also wants to know how the link is."""

    def link_changed(self, report: LinkReport) -> None:
        """The link is in another state."""


class Link:
    """Keeps one connection as long as it runs.

    `hello` makes the first message; `journal` is the content of an empty one, for a clone
    that becomes a machine of its own.
    """

    def __init__(
        self,
        home: AgentHome,
        outbox: Outbox,
        told: Told,
        *,
        hello: Callable[[Credentials], link_pb2.Hello],
        journal: bytes,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._home = home
        self._outbox = outbox
        self._told = told
        self._hello = hello
        self._blank = journal
        self._chance = chance
        self._failures = 0
        self._welcomed: float | None = None
        self._stale = asyncio.Event()
        self._moving: Settings | None = None
        self._try_new_at = 0.0
        self._renew_at = 0.0
        self._refused = False
        self._unaccepted = 0
        self._doubt_again_at = 0.0

    def greet_again(self) -> None:
        """Begin the connection anew, since what `hello` says has changed."""
        self._stale.set()

    async def run(self) -> None:
        """Stay connected until cancelled, or until this machine is another one."""
        while True:
            self._tell(LinkState.CONNECTING)
            self._welcomed = None
            ended = await self._attempt()
            # A connection lives as long as its call, and the traceback of what ended it
            # holds that in a circle: an idle agent would keep the connection for hours.
            gc.collect()
            if isinstance(ended, Failure):
                if ended.code is Code.CLONE:
                    ended = await self._rekeyed()
                    if ended is None:
                        return
                elif ended.code is Code.UNKNOWN_MACHINE and await self._went_back():
                    return
                self._refused = ended.code is Code.DISTRUSTED
                self._unaccepted = self._unaccepted + 1 if ended.unaccepted else 0
                await self._after(ended)
            elif ended is not None:
                short = self._lasted() < backoff.HEALTHY
                self._failures = self._failures + 1 if short else 0
                wait = backoff.wait_when_drained(
                    ended.within, chance=self._chance(), failures=self._failures
                )
                await self._pause(LinkState.WAITING, wait, "the controller drains", "")

    async def _attempt(self) -> Drained | Failure | None:
        """One connection, and how it ended; see `_once`."""
        try:
            return await self._once()
        except Exception as error:  # noqa: BLE001 - see `_failure_of`
            failure = self._failure_of(error)
        if self._moving is None or self._welcomed is not None:
            return failure
        log.warning("new_controller_not_reached", code=failure.code, reason=failure.reason)
        self._try_new_at = clock.monotonic() + RETRY_S
        try:
            return await self._once()
        except Exception as error:  # noqa: BLE001 - see `_failure_of`
            return self._failure_of(error)

    def _failure_of(self, error: Exception) -> Failure:
        """How a connection failed. A mistake of ours is tried again like an outage: what it
        failed of may be there at the next start as well, and backups go on without a link.
        """
        if isinstance(error, SteadError):
            unaccepted = isinstance(error, NotAcceptedError) and self._welcomed is None
            return Failure(error.code, str(error), self._lasted(), unaccepted)
        log.warning("link_failed_unexpectedly", error=repr(error))
        return Failure(Code.INTERNAL, f"the agent failed: {error!r}", self._lasted())

    async def _rekeyed(self) -> Failure | None:
        """Make this clone a machine of its own; why that failed, or None when it is one."""
        log.warning("refused_as_clone")
        try:
            credentials = load_identity(self._home)
            machine = await asyncio.to_thread(
                rekey, credentials, self._home, now=clock.now(), journal=self._blank
            )
        except (SteadError, OSError) as error:
            code = error.code if isinstance(error, SteadError) else Code.PRECONDITION
            return Failure(code, f"a clone, and not yet a new machine: {error}", timedelta())
        log.warning("became_another_machine", before=credentials.identity.machine, now=machine)
        return None

    async def _went_back(self) -> bool:
        """Whether this machine is again one that it was before; see `agent.link.going_back`."""
        try:
            present = load_identity(self._home)
            machine = await asyncio.to_thread(go_back, present, self._home, now=clock.now())
        except (SteadError, OSError) as error:
            log.warning("former_identities_unusable", reason=str(error))
            return False
        if machine is None:
            return False
        log.warning("is_a_former_machine", before=present.identity.machine, now=machine)
        return True

    async def _once(self) -> Drained | None:
        """One connection; None when it was ended for a new certificate's or greeting's sake."""
        self._stale.clear()
        credentials = await self._aimed(load_identity(self._home))
        check_clock(credentials.leaf, clock.now())
        if why := self._why_renew_first(credentials):
            credentials = await self._with_new_certificate(credentials, why)
        elif self._doubts_certificate():
            try:
                why = "no connection came of the one before"
                credentials = await self._with_new_certificate(credentials, why)
            except SteadError as error:
                log.warning("certificate_not_renewed", code=error.code, reason=str(error))
        holder = await asyncio.to_thread(load_holder, self._home)
        address = credentials.settings.link_address
        anchor = await asyncio.to_thread(credentials.anchor, address, clock.now())
        # Not from gRPC's pool of connections: that one would go on with the old certificate.
        proxy = credentials.settings.proxy_for(address)
        options = [*channel_options(proxy), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(
            address, credentials.for_channel(anchor), options=options
        ) as channel:
            renewing = asyncio.create_task(self._renewed(credentials))
            stale = asyncio.create_task(self._stale.wait())
            moving = asyncio.create_task(self._may_move(credentials))
            talking = asyncio.create_task(
                Stream(
                    channel,
                    self._outbox,
                    self._told,
                    holder=holder,
                    keep=partial(keep_token, self._home),
                ).converse(
                    self._hello(credentials), welcomed=partial(self._was_welcomed, credentials)
                )
            )
            try:
                done, _ = await asyncio.wait(
                    {renewing, stale, moving, talking}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done - {talking}:
                    task.result()  # an unexpected end is no reason to connect on and on
                return talking.result() if talking.done() else None
            except SteadError as error:
                if error.code is Code.UNAVAILABLE:
                    if self._welcomed is not None:
                        # To find out why may take a while, and there is no link meanwhile.
                        self._tell(LinkState.WAITING, str(error), error.code)
                    raise await asyncio.to_thread(explained, error, credentials) from error
                raise
            finally:
                tasks = (renewing, stale, moving, talking)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _with_new_certificate(self, credentials: Credentials, why: str) -> Credentials:
        await asyncio.to_thread(renew, credentials, self._home, now=clock.now())
        log.info("certificate_renewed", after=why)
        return replace(load_identity(self._home), settings=credentials.settings)

    def _doubts_certificate(self) -> bool:
        """Whether to try another certificate, since none of the last connections was accepted."""
        if self._unaccepted < DOUBTED_AFTER or clock.monotonic() < self._doubt_again_at:
            return False
        self._doubt_again_at = clock.monotonic() + DOUBTED_PAUSE_S * (0.8 + 0.4 * self._chance())
        return True

    def _why_renew_first(self, credentials: Credentials) -> str:
        """Why a connection with this certificate cannot succeed; empty when it can."""
        refused, self._refused = self._refused, False
        if is_expired(credentials.leaf, clock.now()):
            return "it had expired"
        if refused or credentials.is_distrusted():
            return "its authority is not believed any more"
        return ""

    async def _aimed(self, credentials: Credentials) -> Credentials:
        """With the addresses of the controller to try now: the new one, if there is one."""
        self._moving = None
        if clock.monotonic() >= self._try_new_at:
            self._moving = await asyncio.to_thread(where_to, self._home, credentials.settings)
        return replace(credentials, settings=self._moving or credentials.settings)

    async def _may_move(self, credentials: Credentials) -> None:
        """Return when a new controller answers, while this one is the fallback."""
        while True:
            await asyncio.sleep(RETRY_S)
            if await asyncio.to_thread(where_to, self._home, credentials.settings):
                self._try_new_at = 0.0
                return

    def _was_welcomed(self, credentials: Credentials) -> None:
        self._welcomed = clock.monotonic()
        if self._moving is not None:
            address, self._moving = credentials.settings.link_address, None
            try:
                arrived(self._home, credentials)
            except SteadError as error:
                log.warning("move_not_kept", code=error.code, reason=str(error))
            else:
                log.info("moved_to_another_controller", address=address)

    async def _renewed(self, credentials: Credentials) -> None:
        """Return when there is a new certificate."""
        due = renewal_time(credentials.leaf, chance=self._chance())
        while True:
            if (left := self._until_renewal(due)) > 0:
                await asyncio.sleep(min(left, 3600.0))
                continue
            self._renew_at = clock.monotonic() + RENEWAL_PAUSE_S
            try:
                await asyncio.to_thread(renew, credentials, self._home, now=clock.now())
            except SteadError as error:
                log.warning("certificate_not_renewed", code=error.code, reason=str(error))
                continue
            log.info("certificate_renewed")
            return

    def _until_renewal(self, due: datetime) -> float:
        return max((due - clock.now()).total_seconds(), self._renew_at - clock.monotonic())

    def _lasted(self) -> timedelta:
        """How long the controller was heard; an attempt that took a minute is no health."""
        if self._welcomed is None:
            return timedelta()
        return timedelta(seconds=clock.monotonic() - self._welcomed)

    async def _after(self, failure: Failure) -> None:
        code, reason = failure.code, failure.reason
        if code in PARKING:
            usual = backoff.OUT_OF_USE if code is Code.RETIRED else backoff.PARKED
            wait = backoff.wait_when_parked(chance=self._chance(), usual=usual)
            log.warning("link_parked", code=code, reason=reason, wait_s=wait.seconds)
            await self._pause(LinkState.PARKED, wait, reason, code)
            return
        self._failures = backoff.failures_after(self._failures, failure.lasted)
        wait = backoff.wait_after(self._failures, chance=self._chance())
        log.warning("link_lost", code=code, reason=reason, failures=self._failures)
        await self._pause(LinkState.WAITING, wait, reason, code)

    async def _pause(self, state: LinkState, wait: timedelta, reason: str, code: str) -> None:
        self._tell(state, reason, code, clock.now() + wait)
        until, step = clock.monotonic() + wait.total_seconds(), _step()
        while (left := until - clock.monotonic()) > 0:
            if state is not LinkState.WAITING or not code:
                await asyncio.sleep(left)
                continue
            await asyncio.sleep(min(left, LOOK_AT_CLOCK_S))
            if abs(_step() - step) > STEPPED_S:
                # It was set right, perhaps, or the machine slept and is somewhere else.
                log.info("clock_stepped", seconds=round(_step() - step))
                return

    def _tell(
        self, state: LinkState, reason: str = "", code: str = "", again_at: datetime | None = None
    ) -> None:
        self._told.link_changed(LinkReport(state, clock.now(), reason, code, again_at))


def _step() -> float:
    """How far the wall clock is ahead of the one that never steps, in seconds."""
    return clock.now().timestamp() - clock.monotonic()
