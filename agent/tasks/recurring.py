"""Which runs of standing orders are due, and what each of them is as an order of its own.

A run's id follows from the order and the slot, so the journal, in which each run is noted
before it begins, makes it run at most once in its slot: after a crash, and when the clock
was set back into a slot that is over. `due_run` and `as_order` are pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from agent.config import AgentHome
from agent.host import clock, log
from agent.host.zone import local_zone
from agent.tasks.entry import State
from agent.tasks.in_force import (
    KeptOrder,
    changed_at,
    check_is,
    load_order,
    orders_in_force,
    standing_of,
    verified_order,
)
from agent.tasks.journal import Journal
from agent.tasks.schedule import Timetable, timetable_of
from agent.tasks.verify import Believed
from protocol.codec import decode_envelope, decode_order
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import MachineId, OrderId
from protocol.order import CLOCK_TOLERANCE, Envelope, Order
from protocol.standing import Run, Standing, job_of_run
from protocol.window import next_start, parse_windows

TOLD = frozenset({Code.DENIED, Code.REVOKED})
"""Why a run of a well signed order is refused: operators are told of it as of any outcome."""


@dataclass(frozen=True, slots=True)
class Due:
    """A run that is due: as an order of its own, with the standing order's envelope.

    `refused` says why it does not begin.
    """

    run: Run
    order: Order
    envelope: Envelope
    standing: Standing
    next_at: datetime | None
    refused: SteadError | None = None


def timetable(standing: Standing, machine: MachineId, zone: tzinfo) -> Timetable:
    """When a standing order is run on this machine; INVALID for what is no schedule."""
    times = timetable_of(standing.schedule, machine, zone, spread_s=standing.spread_s)
    if times is None:
        raise InvalidError("a standing order has a schedule")
    return times


@dataclass(frozen=True, slots=True)
class Head:
    """What says when an order is due, of a file that has not been verified."""

    changed_at: tuple[int, int, int]
    taken_in_at: datetime
    issued_at: datetime
    standing: Standing
    windows: tuple[str, ...] = ()
    catch_up: bool = False

    def may_begin(self, now: datetime, until: datetime, zone: tzinfo) -> bool:
        """Whether a window is open now; where none opens any more, whether to catch up."""
        windows = parse_windows(self.windows)
        start = next_start(windows, at=now, deliver_by=until, zone=zone, catch_up=self.catch_up)
        return start is not None and start <= now


@dataclass(frozen=True, slots=True)
class Quiet:
    """The slot of which an order needs nothing more; to find a slot takes a while.

    `shift` is the zone's from UTC: a machine that is carried elsewhere has other slots.
    """

    changed_at: tuple[int, int, int]
    shift: timedelta | None
    begin: datetime
    until: datetime

    def holds(self, head: Head, shift: timedelta | None, now: datetime) -> bool:
        """Whether that is the present slot still."""
        same = (self.changed_at, self.shift) == (head.changed_at, shift)
        return same and self.begin <= now < self.until


def due_run(
    order: OrderId,
    head: Head,
    times: Timetable,
    *,
    last: Run | None,
    summed_until: datetime | None = None,
    now: datetime,
    latest_seen: datetime,
) -> Run | None:
    """The run of the present slot; None where there is none to be made now.

    That this run was not made before is for the journal to say; of the slots until
    `summed_until` it does not know any more. A clock that stands before a time that was
    believed says nothing about slots, so nothing is due by it.
    """
    number = 0 if last is None else last.number
    standing = head.standing
    if now + CLOCK_TOLERANCE < max(latest_seen, head.issued_at):
        return None
    if max(now, latest_seen) >= standing.ends_at:
        return None
    if standing.max_runs and number >= standing.max_runs:
        return None
    slot = times.begin(now)
    if slot == times.begin(head.taken_in_at):
        return None
    if summed_until is not None and slot <= summed_until:
        return None
    # In another zone the present slot may have begun before the last one that was run: then
    # that run was this one's. A last run that is yet to come is of a clock that was ahead.
    if last is not None and slot < last.slot <= now:
        return None
    # A slot within which no window opens has no run, rather than one that expires.
    if not head.may_begin(now, min(times.next(slot), standing.ends_at), times.zone):
        return None
    return Run(order, slot, number + 1)


def as_order(order: Order, standing: Standing, run: Run, times: Timetable) -> Order:
    """A run as an order of its own: it begins within its slot, and before the end of all."""
    return dataclasses.replace(
        order,
        id=job_of_run(run.order, run.slot),
        standing=None,
        rollout=None,
        not_before=run.slot,
        deliver_by=min(times.next(run.slot), standing.ends_at),
    )


def next_after(
    standing: Standing, times: Timetable, *, runs: int, now: datetime
) -> datetime | None:
    """When the next slot begins; None when no further run will be made."""
    if standing.max_runs and runs >= standing.max_runs:
        return None
    following = times.next(now)
    return following if following < standing.ends_at else None


class Recurring:
    """The standing orders of this machine, as they come due."""

    def __init__(self, home: AgentHome, believed: Callable[[], Believed], journal: Journal) -> None:
        self._home = home
        self._believed = believed
        self._journal = journal
        self._said: set[tuple[OrderId, str]] = set()
        self._heads: dict[OrderId, Head] = {}
        self._quiet: dict[OrderId, Quiet] = {}

    def due(self) -> list[Due]:
        """The runs that are to be made now, each order's at most one."""
        found = []
        names = list(orders_in_force(self._home))
        for known in set(self._heads).difference(names):
            del self._heads[known]
            self._quiet.pop(known, None)
        if not names:
            return []
        believed, zone = self._believed(), local_zone()
        for order in names:
            try:
                one = self._due(order, believed, zone)
            except SteadError as error:
                self._say(order, error)
                continue
            except Exception as error:  # noqa: BLE001 - one order must not end the agent for all
                self._say(order, SteadError(repr(error)))
                continue
            if one is not None:
                found.append(one)
        return found

    def again(self, run: Run) -> Due:
        """A run that was noted and has not begun; raises `SteadError` when it may not."""
        kept = load_order(self._home, run.order)
        believed = self._believed()
        order = verified_order(run.order, kept, believed).order
        return self._made(order, kept, run, believed)

    def _due(self, name: OrderId, believed: Believed, zone: tzinfo) -> Due | None:
        head = self._head(name)
        last = self._journal.last_run(name)
        if last is not None and last.state in (State.ACCEPTED, State.STARTED):
            return None  # what takes longer than a slot is not begun a second time meanwhile
        times, now = timetable(head.standing, believed.identity.machine, zone), clock.now()
        if self._is_quiet(name, head, times, now):
            return None
        summed_until = self._journal.summed_until(name)
        if summed_until is not None and now + CLOCK_TOLERANCE < summed_until:
            raise SteadError(
                f"its runs until {summed_until:%Y-%m-%d %H:%M}Z were made, by a clock that was "
                "ahead of this one; revoke it and order it again",
                code=Code.CLOCK_SKEW,
            )
        run = due_run(
            name,
            head,
            times,
            last=None if last is None else last.run,
            summed_until=summed_until,
            now=now,
            latest_seen=self._journal.latest_seen,
        )
        if run is None:
            return None
        kept = load_order(self._home, name)
        try:
            order = verified_order(name, kept, believed).order
        except SteadError as error:
            if error.code not in TOLD:
                raise
            # Not a run: it does not count among those that may be made.
            run = Run(name, run.slot, run.number - 1)
            order = decode_order(decode_envelope(kept.envelope).order)
            return dataclasses.replace(self._made(order, kept, run, believed), refused=error)
        return self._made(order, kept, run, believed)

    def _is_quiet(self, name: OrderId, head: Head, times: Timetable, now: datetime) -> bool:
        """True when the run of the present slot was made, or the order came in it."""
        shift = now.astimezone(times.zone).utcoffset()
        known = self._quiet.get(name)
        if known is None or not known.holds(head, shift, now):
            slot = times.begin(now)
            made = self._journal.of_order(job_of_run(name, slot)) is not None
            if not made and slot != times.begin(head.taken_in_at):
                return False
            self._quiet[name] = Quiet(head.changed_at, shift, slot, times.next(now))
        return True

    def _head(self, name: OrderId) -> Head:
        """When an order is due; its file, which may hold a long script, is read once."""
        changed = changed_at(self._home, name)
        known = self._heads.get(name)
        if known is None or known.changed_at != changed:
            kept = load_order(self._home, name)
            order = decode_order(decode_envelope(kept.envelope).order)
            check_is(order, name)
            known = Head(
                changed,
                kept.taken_in_at,
                order.issued_at,
                standing_of(order),
                order.windows,
                order.catch_up,
            )
            self._heads[name] = known
        return known

    def _made(self, order: Order, kept: KeptOrder, run: Run, believed: Believed) -> Due:
        standing = standing_of(order)
        times = timetable(standing, believed.identity.machine, local_zone())
        return Due(
            run,
            as_order(order, standing, run, times),
            decode_envelope(kept.envelope),
            standing,
            next_after(standing, times, runs=run.number, now=clock.now()),
        )

    def _say(self, order: OrderId, error: SteadError) -> None:
        if (order, str(error)) not in self._said:
            self._said.add((order, str(error)))
            log.warning("standing_order_refused", order=order, code=error.code, reason=str(error))
