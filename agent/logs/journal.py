"""systemd's journal, by `journalctl`."""

from __future__ import annotations

import math
import re

from agent.logs.span import Span
from protocol.errors import InvalidError

_UNIT = re.compile(r"[A-Za-z0-9_.:\\][A-Za-z0-9_.:\\@+-]{0,254}")


def journalctl(unit: str, span: Span, count: int, *, follow: bool) -> tuple[str, ...]:
    """How `journalctl` is called. `unit` may be empty; `InvalidError` when it can be no unit.

    Every value stands behind an equals sign, so that none becomes an option.
    """
    if unit and not _UNIT.fullmatch(unit):
        raise InvalidError(f"{unit[:80]!r} cannot be the name of a unit")
    argv = ["journalctl", "--no-pager", "--quiet", "--utc", "--output=short-iso"]
    if unit:
        argv.append(f"--unit={unit}")
    if span.since is not None:
        argv.append(f"--since=@{math.floor(span.since.timestamp())}")
    if span.until is not None:
        argv.append(f"--until=@{math.ceil(span.until.timestamp())}")
    argv.append(f"--lines={count or 'all'}")
    if follow:
        argv.append("--follow")
    return tuple(argv)
