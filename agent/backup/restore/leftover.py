"""Names of what is half written, and removing what a restore left when it was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from agent.backup.beneath import DIRECTORY

PREFIX: Final = b".stead-restore-"
_STARTED: Final = 19
"""Where a process's time of start stands behind its name in /proc/PID/stat."""


def temporary_names() -> Iterator[bytes]:
    """Names that no other process uses: they say whose they are."""
    own = os.getpid()
    whose = b"%s%d-%s-" % (PREFIX, own, _started(own))
    return (whose + b"%d" % number for number in count())


def remove_leftovers(directory: int) -> None:
    """Remove what a process that is gone left half written in a directory."""
    with os.scandir(directory) as found:
        gone = [one.name for one in found if is_leftover(os.fsencode(one.name))]
    for name in gone:
        with suppress(OSError):
            remove_shallow(os.fsencode(name), directory)


def remove_shallow(name: bytes, directory: int) -> None:
    """Remove a file, or a folder with nothing but files in it. Raises `OSError`."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        fd = os.open(name, DIRECTORY, dir_fd=directory)
        try:
            with os.scandir(fd) as found:
                inside = [one.name for one in found]
            for one in inside:
                os.unlink(one, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=directory)


def is_leftover(name: bytes) -> bool:
    """Whether a name is a restore's that does not run any more.

    >>> is_leftover(b".stead-restore-notes")
    False
    """
    if not name.startswith(PREFIX):
        return False
    process, _, rest = name.removeprefix(PREFIX).partition(b"-")
    started, _, number = rest.partition(b"-")
    if not (process.isdigit() and number.isdigit()):
        return False
    return _started(int(process)) != started


def _started(process: int) -> bytes:
    """When a process began, in its system's ticks; 0 when there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return b"0"
    return stat.rpartition(b")")[2].split()[_STARTED]
