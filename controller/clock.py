"""The one place where the controller reads the time, and draws what must not be guessed."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from protocol.ids import RANDOM_BYTES, make_id


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that never steps; only differences mean something."""
    return time.monotonic()


def boottime() -> float:
    """Seconds that nobody can set, those in which the machine slept among them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def new_id(prefix: str) -> str:
    """A fresh id; see `protocol.ids`."""
    return make_id(prefix, at_ms=time.time_ns() // 1_000_000, random=os.urandom(RANDOM_BYTES))
