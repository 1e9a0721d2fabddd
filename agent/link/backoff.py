"""How long to wait before the next attempt to connect. Pure: chance comes in.

`chance` is a number from 0 up to 1. Full jitter: any moment of a window that doubles
with each failure, so that a fleet that lost its controller does not return at once.
"""

from __future__ import annotations

from datetime import timedelta

FIRST = timedelta(seconds=1)
LONGEST = timedelta(minutes=5)
HEALTHY = timedelta(minutes=1)
"""A connection that lasted this long counts as a success."""

PARKED = timedelta(minutes=5)
"""How often a machine that is not wanted asks again."""

OUT_OF_USE = timedelta(hours=1)
"""How often a machine that was retired asks again."""

_DOUBLINGS = 9


def wait_after(failures: int, *, chance: float) -> timedelta:
    """How long to wait after so many failures in a row, 1 or more.

    >>> wait_after(3, chance=0.5)
    datetime.timedelta(seconds=2)
    """
    doubled = FIRST * (1 << min(max(failures - 1, 0), _DOUBLINGS))
    return min(doubled, LONGEST) * chance


def wait_when_drained(within: timedelta, *, chance: float, failures: int = 0) -> timedelta:
    """A moment in the window that the controller named, which is bounded here too.

    `failures`: after so many connections in a row that were over within a minute, this one
    included; who welcomes and drains again and again is not asked faster than who is away.
    """
    named = min(max(within, FIRST), LONGEST) * chance
    return max(named, wait_after(failures, chance=chance)) if failures else named


def wait_when_parked(*, chance: float, usual: timedelta = PARKED) -> timedelta:
    """A moment around `usual`, since many machines may have been parked together.

    >>> wait_when_parked(chance=0.5, usual=OUT_OF_USE)
    datetime.timedelta(seconds=3600)
    """
    return usual * (0.8 + 0.4 * chance)


def failures_after(failures: int, lasted: timedelta) -> int:
    """How many failures in a row there are once a connection that lasted so long has ended.

    >>> failures_after(7, timedelta(minutes=2)), failures_after(7, timedelta(seconds=3))
    (1, 8)
    """
    return 1 if lasted >= HEALTHY else failures + 1
