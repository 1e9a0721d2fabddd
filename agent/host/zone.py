"""The time zone that this machine lives in, with its rules for summer and winter."""

from __future__ import annotations

import os
import sys
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.host import clock
from protocol.errors import InvalidError

LOCALTIME = Path("/etc/localtime")


def local_zone(localtime: Path = LOCALTIME) -> tzinfo:
    """The zone of `TZ`, else of the file `/etc/localtime`, else the present offset alone.

    Windows has no such file: see `agent.host.windows_zone`.

    Read anew each time: people move their machines.
    """
    name = os.environ.get("TZ", "").lstrip(":")
    if name:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return _present_offset()
    if sys.platform == "win32":
        from agent.host.windows_zone import windows_zone

        try:
            return windows_zone()
        except (InvalidError, ValueError):
            return _present_offset()
    try:
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return _present_offset()


def _present_offset() -> tzinfo:
    zone = clock.now().astimezone().tzinfo
    assert zone is not None
    return zone
