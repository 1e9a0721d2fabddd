"""Times as the database keeps them: whole microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 of a time that knows its zone; exact, without floats.

    Raises `ValueError` for a time without a zone: nobody can say which one was meant.

    >>> to_micros(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    1000005
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; use controller.clock.now()")
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The time in UTC; the inverse of `to_micros`."""
    return _EPOCH + timedelta(microseconds=micros)
