"""When a scrub looks at the next pack. Pure.

A round of a tenant is spread over `SPAN`: half of the thirty days in which everything has
to be looked at, so that a controller that is off half of the time keeps the promise. One
that has fallen behind reads without a pause, at a rate that leaves the disk to others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

SPAN = timedelta(days=14)
PROMISE = timedelta(days=30)
CATCH_UP_BYTES_S = 32 * 1024 * 1024
RETRY = timedelta(hours=6)
"""How soon something is tried again that could not be read."""


@dataclass(frozen=True, slots=True)
class Round:
    """How far the newest round of a tenant is. `began_at` is None before the first."""

    tenant: str
    began_at: datetime | None
    is_open: bool
    done_bytes: int
    total_bytes: int


def due_at(one: Round, now: datetime, span: timedelta = SPAN) -> datetime:
    """When the next pack of a tenant is to be looked at; a past time is late.

    >>> now = datetime(2026, 5, 15)
    >>> due_at(Round("tn_1", datetime(2026, 5, 8), True, 50, 100), now)
    datetime.datetime(2026, 5, 15, 0, 0)
    >>> due_at(Round("tn_1", datetime(2026, 5, 8), False, 100, 100), now)
    datetime.datetime(2026, 5, 22, 0, 0)
    """
    # A clock that was set back must not put scrubbing off for longer than a round.
    if one.began_at is None or one.began_at > now:
        return now
    if not one.is_open:
        return one.began_at + span
    total = max(one.total_bytes, one.done_bytes)
    return one.began_at + (span * (one.done_bytes / total) if total else timedelta())


def most_urgent(
    rounds: list[Round], now: datetime, span: timedelta = SPAN
) -> tuple[Round, timedelta] | None:
    """The round that is most behind, and how long to wait for it; None when there is none."""
    if not rounds:
        return None
    first = min(rounds, key=lambda one: due_at(one, now, span))
    return first, max(due_at(first, now, span) - now, timedelta())


def rest_s(read_bytes: int, took_s: float, rate: int = CATCH_UP_BYTES_S) -> float:
    """How long to rest after a read, so that no more than `rate` bytes a second are read.

    >>> rest_s(32 * 1024 * 1024, 0.25)
    0.75
    """
    return max(0.0, read_bytes / rate - took_s)
