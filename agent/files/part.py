"""The file beside its place that a put writes: its name, and what becomes of one that is left.

The name is that of the task, so the same task goes on with it after a crash. When a task is
over nobody does: whoever ended it removes its part, and a later put one that still lies there.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.files.way import Spot, listing, spot_at
from agent.host import log
from protocol.errors import SteadError
from protocol.ids import TaskId

_LONGEST: Final = 200
_PART: Final = b".part"
_TASK: Final = re.compile(r"ts_[0-9a-z]{26}\Z")


def part_name(spot: Spot, task: TaskId) -> bytes:
    """What a task's part of a file is called; a part of a name that is too long."""
    return _beginning(spot) + task.encode() + _PART


def remove_parts(spot: Spot, own: bytes) -> None:
    """Remove those of other tasks that nobody holds locked, where the directory may be read."""
    beginning = _beginning(spot)
    names: list[bytes] = []
    with (
        suppress(PermissionError),
        listing(spot.fd) as readable,
        os.scandir(readable) as entries,
    ):
        names = [os.fsencode(entry.name) for entry in entries]
    for name in names:
        task = name.removeprefix(beginning).removesuffix(_PART).decode(errors="replace")
        if name == own or name != beginning + task.encode() + _PART or not _TASK.match(task):
            continue
        with suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=spot.fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=spot.fd)
            finally:
                os.close(fd)


def remove_part(path: bytes, home: Path, task: TaskId) -> None:
    """Remove that of a task which was ended from outside, if there is one."""
    try:
        with spot_at(path, home) as spot:
            os.unlink(part_name(spot, task), dir_fd=spot.fd)
    except FileNotFoundError:
        return
    except (OSError, SteadError) as error:
        log.warning("part_not_removed", task=task, reason=str(error))


def _beginning(spot: Spot) -> bytes:
    return b"." + spot.name[:_LONGEST] + b"."
