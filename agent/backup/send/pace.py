"""How fast a backup may send: a token bucket, which knows no clock and never sleeps.

A message leaves when all of it is paid for. So in any span of t seconds no more leaves
than rate · t and one burst, or one message where that is larger than a burst.
"""

from __future__ import annotations

from protocol.errors import InvalidError

LOWEST_BYTES_S = 16 * 1024
"""Below this a single chunk would take longer than a session's lease allows for."""

BURST_S = 0.25
_MESSAGES_A_BURST = 2


class Bucket:
    """Lets `rate` bytes a second through. Time is whatever the caller counts, in seconds."""

    def __init__(self, rate: int, *, burst_s: float = BURST_S) -> None:
        self.rate = checked_limit(rate)
        self._burst_s = burst_s
        self._paid_at: float | None = None
        """When everything that was taken is paid for."""

    @property
    def burst_bytes(self) -> float:
        """What may leave at once after a rest."""
        return self.rate * self._burst_s

    @property
    def message_bytes(self) -> int:
        """How large messages should be, for an even flow."""
        return max(int(self.burst_bytes) // _MESSAGES_A_BURST, 1)

    def take(self, size: int, now: float) -> float:
        """Take `size` bytes; after how many seconds they may leave.

        >>> bucket = Bucket(100_000, burst_s=0.5)
        >>> bucket.take(50_000, 0.0), bucket.take(50_000, 0.0), bucket.take(50_000, 9.0)
        (0.0, 0.5, 0.0)
        """
        rested = now - self._burst_s
        begun = rested if self._paid_at is None else max(self._paid_at, rested)
        self._paid_at = begun + size / self.rate
        return max(self._paid_at - now, 0.0)


def checked_limit(limit: int) -> int:
    """The limit, when it is one; `InvalidError` otherwise."""
    if limit < LOWEST_BYTES_S:
        raise InvalidError(
            f"a limit of {limit} bytes a second is too low: {LOWEST_BYTES_S} (16k) is the lowest, "
            "and without a limit there is none"
        )
    return limit


def lower(*limits: int) -> int:
    """The lowest of some limits, where 0 is none.

    >>> lower(0, 20, 10), lower(0, 0)
    (10, 0)
    """
    return min((limit for limit in limits if limit), default=0)
