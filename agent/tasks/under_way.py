"""Keep in files what runs, for `stead-agent status`: one for each task, locked while it runs.

They are of no use to the agent itself, and a file that cannot be written keeps no task
from running. One whose process was killed is not locked any more, and goes away.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from agent.config import AgentHome
from agent.host import clock, log
from agent.host.descriptor import OURS, pread, pwrite, take_lock
from agent.host.files import make_private_directory
from protocol.errors import UNREADABLE

_AGAIN_S = 0.5
_MOST_BYTES = 64 * 1024


class UnderWay(msgspec.Struct, frozen=True):
    """A task that runs. `progress` is what its worker said last."""

    task: str
    kind: str
    since: clock.Moment
    progress: dict[str, Any] = {}


class Noted:
    """The file of one task; nothing is written when there is none."""

    def __init__(self, fd: int | None, first: UnderWay) -> None:
        self._fd = fd
        self._last = first
        self._next = 0.0
        self._write()

    def heard(self, progress: Mapping[str, Any]) -> None:
        """The worker said how far it is."""
        self._last = msgspec.structs.replace(self._last, progress=dict(progress))
        if clock.monotonic() >= self._next:
            self._write()

    def _write(self) -> None:
        self._next = clock.monotonic() + _AGAIN_S
        if self._fd is None:
            return
        try:
            # A reader takes what is before the end of the line, whatever is behind it still.
            data = msgspec.json.encode(self._last) + b"\n"
            pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))
        except OSError as error:
            log.warning("progress_not_kept", reason=error.strerror)


@contextmanager
def noted(home: AgentHome, task: str, kind: str) -> Iterator[Noted]:
    """Keep a task among those that run, for the block."""
    path = home.under_way / task
    fd = _open(path)
    try:
        yield Noted(fd, UnderWay(task, kind, clock.now()))
    finally:
        if fd is not None:
            os.close(fd)  # first, because Windows removes no open file
            with suppress(OSError):
                path.unlink()


def _open(path: Path) -> int | None:
    # Windows renames no open file; there a reader cannot remove what he finds without a lock.
    aside = path if sys.platform == "win32" else path.with_suffix(".new")
    try:
        make_private_directory(path.parent)
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | OURS, 0o600)
    except OSError as error:
        log.warning("progress_not_kept", reason=error.strerror)
        return None
    try:
        # Locked before it has its name, so that nobody finds it without.
        if not take_lock(fd):
            raise BlockingIOError(errno.EAGAIN, "another process has it")
        if aside != path:
            aside.rename(path)
    except OSError as error:
        log.warning("progress_not_kept", reason=error.strerror)
        os.close(fd)
        return None
    return fd


def under_way(home: AgentHome) -> list[UnderWay]:
    """What runs, the oldest first; removes the files of what was killed."""
    found = []
    for path in home.under_way.iterdir() if home.under_way.is_dir() else ():
        if path.suffix != ".new":
            one = _read(path)
            if one is not None:
                found.append(one)
    return sorted(found, key=lambda one: one.since)


def _read(path: Path) -> UnderWay | None:
    try:
        fd = os.open(path, os.O_RDONLY | OURS)
    except FileNotFoundError:
        return None
    try:
        runs = not take_lock(fd, shared=True)
        data = pread(fd, _MOST_BYTES, 0).partition(b"\n")[0]
    finally:
        os.close(fd)
    if not runs:
        with suppress(OSError):
            path.unlink()
        return None
    try:
        return msgspec.json.decode(data, type=UnderWay)
    except UNREADABLE:
        # Just being written for the first time.
        return None
