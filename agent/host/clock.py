"""The one place where the agent reads the time, and draws what must not be guessed."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from protocol.ids import RANDOM_BYTES, make_id

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time in a file. One without a zone is none: it cannot be compared with any other."""


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that never steps; only differences mean something."""
    return time.monotonic()


def wall_ns() -> int:
    """The wall clock in nanoseconds since 1970, for comparison with files' time stamps."""
    return time.time_ns()


def boot_ns() -> int:
    """Nanoseconds since the machine was started, sleep included where the system counts it."""
    if sys.platform != "linux":
        return time.monotonic_ns()
    else:  # noqa: RET505 - each system's types are checked apart
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def new_id(prefix: str) -> str:
    """A fresh id; see `protocol.ids`."""
    return make_id(prefix, at_ms=time.time_ns() // 1_000_000, random=os.urandom(RANDOM_BYTES))
