"""Lengths of time as they are typed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import rich_click as click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]{1,12})([smhd])\Z")
_LONGEST_S = 9999 * 86400


class Span(click.ParamType):  # type: ignore[type-arg]
    """A length of time: 90s, 15m, 4h, 7d."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Parse it; click says what was wrong."""
        if isinstance(value, timedelta):
            return value
        found = _SPAN.match(str(value))
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is not a time such as 90s, 15m, 4h or 7d", param, ctx)
        seconds = int(found[1]) * _UNITS[found[2]]
        if seconds > _LONGEST_S:
            self.fail(f"{value!r} is longer than {_LONGEST_S // 86400} days", param, ctx)
        return timedelta(seconds=seconds)
