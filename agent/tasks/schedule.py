"""When a backup set is due by itself. Pure.

Time is cut into slots of an hour, a day or a week, moved by an offset that each
machine has for itself, so that a fleet does not begin all at once. A set is due when
the present slot has not been run; whatever was missed before is caught up once.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from protocol.errors import InvalidError
from protocol.ids import MachineId

PERIODS = {
    "hourly": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
}
DRILLS = {
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
    "monthly": timedelta(days=30),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def period_of(schedule: str) -> timedelta | None:
    """How long a slot is; None for a set that runs on order only.

    Raises `InvalidError` for a word that is no schedule.
    """
    if not schedule:
        return None
    if schedule not in PERIODS:
        raise InvalidError(
            f"{schedule[:80]!r} is no schedule; there are: {', '.join(PERIODS)}, and none"
        )
    return PERIODS[schedule]


def drill_period_of(schedule: str) -> timedelta | None:
    """How long a slot for drills is; None where they are made on order only.

    Raises `InvalidError` for a word that is no schedule.
    """
    if not schedule:
        return None
    if schedule not in DRILLS:
        raise InvalidError(
            f"{schedule[:80]!r} is no schedule for drills; there are: {', '.join(DRILLS)}, and none"
        )
    return DRILLS[schedule]


def offset_of(machine: MachineId, period: timedelta) -> timedelta:
    """Where in a slot this machine begins: the same for ever, and spread over the fleet."""
    number = int.from_bytes(hashlib.sha256(machine.encode()).digest()[:8], "big")
    return timedelta(seconds=number % int(period.total_seconds()))


def slot_of(at: datetime, machine: MachineId, period: timedelta) -> int:
    """The number of the slot that a time is in."""
    return (at - _EPOCH - offset_of(machine, period)) // period


def begin_of(slot: int, machine: MachineId, period: timedelta) -> datetime:
    """When a slot begins."""
    return _EPOCH + offset_of(machine, period) + slot * period


def is_due(now: datetime, last: datetime, machine: MachineId, period: timedelta) -> bool:
    """True when no run was made in the present slot.

    A last run in a later slot than this one means that the clock was set back: then
    it is due as well, since nobody knows how long ago that run was.
    """
    return slot_of(now, machine, period) != slot_of(last, machine, period)
