"""Points in time as people type them. Pure: the present and the time zone come in.

2026-05-01   2026-05-01 12:00   2026-05-01T12:00:30Z   a day means its beginning
today   yesterday   monday                             the beginning of that day
30m   2h   3d   1w                                     so long ago
now
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

from protocol.errors import InvalidError

_AGO = re.compile(r"(\d{1,6})([mhdw])\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def parse_moment(
    text: str, *, now: datetime, local: Callable[[datetime], datetime] = datetime.astimezone
) -> datetime:
    """The point in time that was meant, in UTC; INVALID for anything else, or the future.

    `local` gives a time without a zone the zone of whoever typed it, and turns a time
    with one into that zone.

    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> parse_moment("3d", now=noon) == noon - timedelta(days=3)
    True
    """
    word = text.strip().lower()
    found = _ago(word, now) or _day(word, local(now), local) or _written(text.strip(), local)
    if found is None:
        raise InvalidError(
            f"{text[:80]!r} is not a point in time such as 2026-05-01, '2026-05-01 12:00', "
            "yesterday, monday, 3d or 2h"
        )
    if found > now:
        raise InvalidError(f"{text[:80]!r} is in the future")
    return found


def parse_until(
    text: str, *, now: datetime, local: Callable[[datetime], datetime] = datetime.astimezone
) -> datetime:
    """A point in time to come, in UTC: a date, or so long from now. INVALID for anything else.

    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> parse_until("3d", now=noon) == noon + timedelta(days=3)
    True
    """
    past = _ago(text.strip().lower(), now)
    found = _written(text.strip(), local) if past is None else now + (now - past)
    if found is None:
        raise InvalidError(
            f"{text[:80]!r} is not a point in time such as 2027-01-31, '2027-01-31 12:00' or 90d"
        )
    if found <= now:
        raise InvalidError(f"{text[:80]!r} is not in the future")
    return found


def _ago(word: str, now: datetime) -> datetime | None:
    if word == "now":
        return now
    found = _AGO.match(word)
    if found is None:
        return None
    try:
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        return None


def _day(word: str, today: datetime, local: Callable[[datetime], datetime]) -> datetime | None:
    if word == "today":
        back = 0
    elif word == "yesterday":
        back = 1
    elif word in _DAYS:
        # On a Monday, "monday" is the week before: today has a word of its own.
        back = (today.weekday() - _DAYS.index(word) - 1) % 7 + 1
    else:
        return None
    begins = datetime.combine(today.date() - timedelta(days=back), time())
    return local(begins).astimezone(UTC)


def _written(text: str, local: Callable[[datetime], datetime]) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else local(found)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
