"""When a line of a log was written, as far as the line says it.

Pure. A line that begins with no time belongs to the one before: a stack trace goes where
its message goes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_ISO = re.compile(
    rb"[\[<]?(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?\s?(Z|[+-]\d\d:?\d\d)?"
)
_SYSLOG = re.compile(rb"(?:<\d{1,3}>)?([A-Z][a-z]{2}) ([ 0-3]\d) (\d\d):(\d\d):(\d\d)\b")
_APACHE = re.compile(
    rb".{0,200}?\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\]"
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1
    )
}


def time_of(line: bytes, *, zone: tzinfo, written_by: datetime) -> datetime | None:
    """The time that a line begins with, in UTC; None when it begins with none.

    `zone` is of those that name none, and `written_by` is a time at which the line was
    there: syslog's times have no year.

    >>> at = datetime(2026, 1, 2, tzinfo=UTC)
    >>> str(time_of(b"Dec 31 23:59:58 web cron[1]: x", zone=UTC, written_by=at))
    '2025-12-31 23:59:58+00:00'
    """
    try:
        if found := _ISO.match(line):
            *numbers, offset = found.groups()
            return _in_utc([int(number) for number in numbers], offset, zone)
        if found := _SYSLOG.match(line):
            name, *numbers = found.groups()
            parts = [_MONTHS[name], *(int(number) for number in numbers)]
            return _of_this_year(parts, zone, written_by)
        if found := _APACHE.match(line):
            day, name, year, *clock, offset = found.groups()
            parts = [int(year), _MONTHS[name], int(day), *(int(number) for number in clock)]
            return _in_utc(parts, offset, zone)
    except (ValueError, KeyError, OverflowError):
        return None  # it looks like a time and is none: 31 February
    return None


def _in_utc(parts: list[int], offset: bytes | None, zone: tzinfo) -> datetime:
    year, month, day, hour, minute, second = parts
    where: tzinfo | None = zone
    if offset:
        where = UTC
    # A leap second is in the minute that it ends.
    at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=where)
    if offset and offset != b"Z":
        ahead = timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:]))
        at = at - ahead if offset[:1] == b"+" else at + ahead
    return at.astimezone(UTC)


def _of_this_year(parts: list[int], zone: tzinfo, written_by: datetime) -> datetime:
    """The latest such day that is not after `written_by`, with a day for clocks that differ."""
    latest = written_by + timedelta(days=1)
    year = latest.astimezone(zone).year
    at = _in_utc([year, *parts], None, zone)
    return at if at <= latest else _in_utc([year - 1, *parts], None, zone)
