"""The port to the log that a system keeps of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.logs.span import Span

DAY_S = 86_400.0
"""Longer than any order follows; its time-out ends it before."""
MOST_BYTES = 8 * 1024 * 1024
TOO_MUCH = f"more than {MOST_BYTES} bytes: the older rest is not shown"


class EnoughError(Exception):
    """As much was read as is shown."""


class SystemLog(Protocol):
    """Shows what the system's log says."""

    def read(
        self,
        unit: str,
        span: Span,
        count: int,
        *,
        follow: bool,
        printed: Callable[[bytes], None],
    ) -> str:
        """Pass on the lines within `span`, the last `count` of them (all when 0).

        `unit` narrows them down in the system's own words. The answer says what is missing.
        Raises `SteadError`, INVALID for a `unit` that can be none; `printed` may raise to end it.
        """
