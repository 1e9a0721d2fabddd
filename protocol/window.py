"""Maintenance windows: the hours of the week within which an order may be started. Pure.

    22:00-04:00               every day; a window belongs to the day on which it opens
    sat,sun 08:00-20:00       on these days
    mon-fri 00:00-06:00       on a range of days

Windows count in the zone of the machine that starts the order. Where a clock is put
forward, a time that does not exist is the first moment after the gap; where it is put back,
a time that is there twice is its first one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from protocol.errors import InvalidError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_WINDOWS: Final = 20
_DAY: Final = timedelta(days=1)
_MINUTES: Final = 24 * 60
_LONGEST: Final = 100
_WINDOW: Final = re.compile(
    r"(?:([a-z,-]+)\s+)?([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])\Z", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Window:
    """`days` count from 0 for Monday; minutes count from midnight, the end exclusive.

    A window that ends at its beginning or before that ends on the next day.
    """

    days: frozenset[int]
    begin: int
    end: int

    def opening_on(self, day: datetime, zone: tzinfo) -> tuple[datetime, datetime] | None:
        """When it opens on a day, and closes, in UTC; None when it does not on that day.

        `day` is a midnight without a zone.
        """
        if day.weekday() not in self.days:
            return None
        length = self.end - self.begin + (_MINUTES if self.end <= self.begin else 0)
        opens = day + timedelta(minutes=self.begin)
        closes = opens + timedelta(minutes=length)
        return _instant(opens, zone), _instant(closes, zone)


def parse_window(text: str) -> Window:
    """A window as it is written; raises `InvalidError` for what is none.

    >>> render_window(parse_window("Sat,sun 22:00-04:00"))
    'sat,sun 22:00-04:00'
    """
    found = _WINDOW.match(text.strip().lower()) if len(text) <= _LONGEST else None
    if found is None:
        raise InvalidError(
            f"{text[:80]!r} is no window; write it as 22:00-04:00, or with days before it: "
            "sat,sun 22:00-04:00"
        )
    begin = int(found[2]) * 60 + int(found[3])
    end = int(found[4]) * 60 + int(found[5])
    if begin >= _MINUTES or end > _MINUTES:
        raise InvalidError(f"{text[:80]!r} names an hour that no day has")
    if begin == end:
        raise InvalidError(f"{text[:80]!r} opens and closes at once; a whole day is 00:00-24:00")
    return Window(_days(found[1], text), begin, end)


def render_window(window: Window) -> str:
    """The window as `parse_window` reads it."""
    times = "-".join(f"{at // 60:02}:{at % 60:02}" for at in (window.begin, window.end))
    if len(window.days) == len(DAYS):
        return times
    return f"{','.join(DAYS[day] for day in sorted(window.days))} {times}"


def parse_windows(texts: Sequence[str]) -> tuple[Window, ...]:
    """Windows as an order has them; raises `InvalidError`."""
    if len(texts) > MAX_WINDOWS:
        raise InvalidError(f"an order has at most {MAX_WINDOWS} windows")
    return tuple(map(parse_window, texts))


def next_opening(windows: Sequence[Window], at: datetime, zone: tzinfo) -> datetime:
    """The first time from `at` on at which a window is open, in UTC: `at` while one is."""
    today = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    found = []
    # A window of the day before may still be open; eight days hold every day of the week
    # after the present one is over.
    for day in range(-1, 9):
        for window in windows:
            opening = window.opening_on(today + day * _DAY, zone)
            if opening is not None and opening[0] < opening[1] and at < opening[1]:
                found.append(max(at, opening[0]))
    if not found:
        raise InvalidError("these windows never open")
    return min(found)


def next_start(
    windows: Sequence[Window],
    *,
    at: datetime,
    deliver_by: datetime,
    zone: tzinfo,
    catch_up: bool,
) -> datetime | None:
    """When an order is to be started, from `at` on; None when no window opens in time.

    `catch_up` starts it at once, outside of a window, where none opens any more in time.
    """
    if not windows:
        return at
    opening = next_opening(windows, at, zone)
    if opening <= deliver_by:
        return opening
    return at if catch_up else None


def _instant(local: datetime, zone: tzinfo) -> datetime:
    """A time on the wall, in UTC."""
    latest = local.replace(tzinfo=zone).astimezone(UTC)
    if latest.astimezone(zone).replace(tzinfo=None) == local:
        return latest
    # In a gap the two folds lie on either side of it: look for where the offset changes.
    earliest = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    before = earliest.astimezone(zone).utcoffset()
    while latest - earliest > timedelta(seconds=1):
        middle = earliest + timedelta(seconds=(latest - earliest) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before:
            earliest = middle
        else:
            latest = middle
    return latest


def _days(text: str | None, whole: str) -> frozenset[int]:
    if text is None:
        return frozenset(range(len(DAYS)))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise InvalidError(f"{whole[:80]!r} names a day that is none of {', '.join(DAYS)}")
        begin = DAYS.index(first)
        span = (DAYS.index(last) - begin) % len(DAYS) if dash else 0
        days |= {(begin + step) % len(DAYS) for step in range(span + 1)}
    return frozenset(days)
