"""When something is to be done again and again. Pure.

A schedule cuts time into slots: of an hour, a day or a week, or from each time that a
cron expression names to the next. Each machine begins its slots at an offset of its own
within the spread, so that a fleet does not begin all at once. What was missed is caught
up once: a slot has been run or it has not.

Cron expressions count in the zone of whoever runs them. Where a clock is put forward, a
time that does not exist is taken at the first moment after the gap; where it is put
back, a time that is there twice is taken once. Only those with a `*` for the hour follow
every hour that passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from types import MappingProxyType
from typing import Final, TypeAlias

from cronsim import CronSim, CronSimError

from protocol.errors import InvalidError

WORDS: Final[Mapping[str, timedelta]] = MappingProxyType(
    {
        "hourly": timedelta(hours=1),
        "daily": timedelta(days=1),
        "weekly": timedelta(weeks=1),
    }
)
LONGEST_SPREAD: Final = timedelta(days=7)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS: Final = 5
_LONGEST: Final = 200
_ANY_SHIFT: Final = timedelta(hours=27)
"""More than any clock is ever put forward or back, and a day."""


@dataclass(frozen=True, slots=True)
class Every:
    """Slots of one length, whatever the zone."""

    period: timedelta


@dataclass(frozen=True, slots=True)
class Cron:
    """Slots that begin at the times of an expression of five fields."""

    expression: str


Schedule: TypeAlias = Every | Cron


def parse_schedule(text: str) -> Schedule | None:
    """A schedule from how it is written; None for nothing, which means on order only.

    Raises `InvalidError` for a word that is none and for an expression that names no time.
    """
    if not text:
        return None
    if text in WORDS:
        return Every(WORDS[text])
    if len(text) > _LONGEST or len(text.split()) != _FIELDS:
        raise InvalidError(
            f"{text[:80]!r} is no schedule; there are: {', '.join(WORDS)}, and cron expressions "
            "of five fields such as '30 2 * * 1-5' (minute, hour, day, month, weekday)"
        )
    try:
        next(CronSim(text, _EPOCH))
    except CronSimError as error:
        raise InvalidError(f"{text!r} is no cron expression: {error}") from error
    except StopIteration:
        raise InvalidError(f"{text!r} names a time that never comes") from None
    return Cron(text)


def offset_of(name: str, spread: timedelta) -> timedelta:
    """Where within a spread somebody of this name begins: the same for ever, in seconds."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return timedelta(seconds=number % max(1, int(spread.total_seconds())))


def spread_of(schedule: Schedule, wanted: timedelta | None) -> timedelta:
    """The spread of a schedule: as wanted, else a whole slot, and none for an expression.

    Whoever writes down a time means that time. No spread is longer than a slot of a word,
    or than a week.
    """
    if isinstance(schedule, Every):
        return schedule.period if wanted is None else min(wanted, schedule.period)
    return timedelta() if wanted is None else min(wanted, LONGEST_SPREAD)


def slot_begin(schedule: Schedule, at: datetime, offset: timedelta, zone: tzinfo) -> datetime:
    """When the slot that a time lies in began, in UTC: at that time or before."""
    moved = at - offset
    if isinstance(schedule, Every):
        return _EPOCH + (moved - _EPOCH) // schedule.period * schedule.period + offset
    local = moved.astimezone(zone)
    # Backwards only to find a place well before: forwards alone says what counts.
    start = next(CronSim(schedule.expression, local, reverse=True)) - _ANY_SHIFT
    found = None
    for begin in CronSim(schedule.expression, start.astimezone(zone)):
        if begin.astimezone(UTC) > moved:
            break
        found = begin
    if found is None:
        # Just before the first time of all: nothing was to be done yet.
        return _EPOCH + offset
    return found.astimezone(UTC) + offset


def next_begin(schedule: Schedule, at: datetime, offset: timedelta, zone: tzinfo) -> datetime:
    """When the next slot begins, in UTC: later than that time."""
    moved = at - offset
    if isinstance(schedule, Every):
        return slot_begin(schedule, at, offset, zone) + schedule.period
    for begin in CronSim(schedule.expression, (moved - _ANY_SHIFT).astimezone(zone)):
        if begin.astimezone(UTC) > moved:
            return begin.astimezone(UTC) + offset
    raise InvalidError(f"{schedule.expression!r} names a time that never comes")


def is_due(
    schedule: Schedule, now: datetime, last: datetime, offset: timedelta, zone: tzinfo
) -> bool:
    """True when no run was made in the present slot.

    A last run in a later slot than this one means that the clock was set back: then
    it is due as well, since nobody knows how long ago that run was.
    """
    return slot_begin(schedule, now, offset, zone) != slot_begin(schedule, last, offset, zone)
