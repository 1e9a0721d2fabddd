"""When this machine does by itself what a standing order says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from protocol.errors import InvalidError
from protocol.ids import MachineId
from protocol.schedule import (
    Every,
    Schedule,
    is_due,
    next_begin,
    offset_of,
    parse_schedule,
    slot_begin,
    spread_of,
)

DRILLS = {
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
    "monthly": timedelta(days=30),
}


@dataclass(frozen=True, slots=True)
class Timetable:
    """A schedule as this machine keeps it: from its own offset on, in its own zone."""

    schedule: Schedule
    offset: timedelta
    zone: tzinfo

    def is_due(self, now: datetime, last: datetime) -> bool:
        """Whether the present slot has not been run; see `protocol.schedule.is_due`."""
        return is_due(self.schedule, now, last, self.offset, self.zone)

    def begin(self, now: datetime) -> datetime:
        """When the present slot began, in UTC."""
        return slot_begin(self.schedule, now, self.offset, self.zone)

    def next(self, now: datetime) -> datetime:
        """When the next slot begins, in UTC."""
        return next_begin(self.schedule, now, self.offset, self.zone)


def timetable_of(
    schedule: str, machine: MachineId, zone: tzinfo, *, spread_s: int = 0
) -> Timetable | None:
    """The timetable of a backup set or standing order; None for what runs on order only.

    `spread_s` of 0 is the schedule's own. Raises `InvalidError` for what is no schedule.
    """
    parsed = parse_schedule(schedule)
    if parsed is None:
        return None
    spread = spread_of(parsed, timedelta(seconds=spread_s) if spread_s else None)
    return Timetable(parsed, offset_of(machine, spread), zone)


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


def timetable_of_drills(period: timedelta, machine: MachineId, zone: tzinfo) -> Timetable:
    """The timetable of drills that come once a period."""
    return Timetable(Every(period), offset_of(machine, period), zone)
