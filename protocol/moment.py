"""Times as messages and files have them: milliseconds since 1970. Pure.

The one way in: whoever reckons with what a peer said, reckons with a time that there is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from protocol.errors import InvalidError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS: Final = 253_402_300_799_000
"""The last second of the year 9999."""

_MILLISECOND: Final = timedelta(milliseconds=1)


def to_ms(at: datetime | None) -> int:
    """Milliseconds since 1970; 0 for None.

    >>> to_ms(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000
    """
    return 0 if at is None else (at - EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """The time of so many milliseconds since 1970; `InvalidError` when out of range."""
    if not 0 <= ms <= LAST_MS:
        raise InvalidError(f"{ms} is not a time in milliseconds since 1970")
    return EPOCH + ms * _MILLISECOND
