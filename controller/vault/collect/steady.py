"""Whether the clock has run steadily, so that what is due by it may be deleted.

A clock that is set ahead by days makes due at once what was to stay for days. So it is
held against one that nobody can set. After a leap nothing is deleted for a day: time to
set the clock back, which ends the wait. Which of two times is right nobody can tell; a
controller that is started with a wrong clock knows nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from protocol.errors import Code, SteadError

LEAP = timedelta(hours=12)
"""By less than this clocks are put right, and drift."""
REST = timedelta(days=1)


class ClockLeaptError(SteadError):
    """The clock was set ahead a short while ago."""

    code = Code.PRECONDITION


class Steady:
    """Reads a clock that may be set, `now`, and one in seconds that may not, `ticks`."""

    def __init__(self, now: Callable[[], datetime], ticks: Callable[[], float]) -> None:
        self._now = now
        self._ticks = ticks
        self._at = now()
        self._tick = ticks()
        self._leap = timedelta()
        self._leapt_at = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The time, by which something may be deleted; `ClockLeaptError` after a leap.

        Any thread may ask.
        """
        with self._lock:
            return self._judged()

    def _judged(self) -> datetime:
        at, tick = self._now(), self._ticks()
        gained = at - self._at - timedelta(seconds=tick - self._tick)
        self._at, self._tick = at, tick
        if gained > LEAP:
            self._leap += gained
            self._leapt_at = tick
        elif gained < -LEAP:
            self._leap = max(self._leap + gained, timedelta())
        rest = REST - timedelta(seconds=tick - self._leapt_at)
        if self._leap <= LEAP or rest <= timedelta():
            self._leap = timedelta()
            return at
        raise ClockLeaptError(
            f"the controller's clock was set ahead by {_shown(self._leap)}: nothing is forgotten "
            f"by rules or collected for {_shown(rest)}. Set it back if it is wrong now; if it is "
            "right, wait, or restart the controller"
        )


def _shown(length: timedelta) -> str:
    """A length in the largest unit that fits.

    >>> _shown(timedelta(days=3, hours=20)), _shown(timedelta(hours=13))
    ('3 days', '13 hours')
    """
    days, hours = length.days, length // timedelta(hours=1)
    return f"{days} days" if days > 1 else f"{hours} hours"
