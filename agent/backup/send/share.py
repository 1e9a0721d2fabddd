"""Keep a worker's share of the processor below a limit, by resting in proportion.

No control group is needed, so it is the same in a container, without systemd, and for an
ordinary user. What counts is processor time, of all threads and of the processes named: a
machine that is busy otherwise gives less of it, and then there is less to rest for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

BURST_S: Final = 0.1
LOOK_S: Final = 0.01
"""Asked more often than this, it looks at the clock alone."""


class Share:
    """At most `percent` of one processor. Times are whatever the caller counts, in seconds."""

    def __init__(self, percent: int) -> None:
        self._share = percent / 100
        self._used: float | None = None
        self._paid_at = 0.0

    def rest(self, used: float, now: float) -> float:
        """For how long to rest, having used so much processor time in all.

        >>> share = Share(50)
        >>> share.rest(3.0, 10.0), share.rest(4.0, 11.0)
        (0.0, 1.0)
        """
        if self._used is None:
            self._used, self._paid_at = used, now
        fresh = used - self._used
        # Time in which nothing was used is not saved up, but for a little.
        begun = max(self._paid_at, now - fresh - BURST_S)
        self._paid_at, self._used = begun + fresh / self._share, used
        return max(self._paid_at - now, 0.0)


def processor_time(children: Iterable[int]) -> float:
    """Seconds of processor time of this process, and of some that it has forked."""
    used = time.process_time()
    for child in children:
        # The clock of another process, see clock_getcpuclockid(3).
        with suppress(OSError):
            used += time.clock_gettime(~child << 3 | 2)
    return used
