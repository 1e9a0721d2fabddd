"""Make what a restore has written durable: syncfs(2), once for each file system.

Once at the end costs a file system one wait; fsync(2) of each file would cost as many as
there are files. Since Linux 5.8 syncfs also reports what failed to be written in the
background after the descriptor was opened, which is before anything is written.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Final

from agent.backup.skipped import reason_of
from protocol.errors import SteadError


class NotDurableError(SteadError):
    """What was restored may not be on the disk."""


def _sync_file_system(fd: int) -> None:
    if _syncfs is None:
        os.sync()
    elif _syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_syncfs: Final = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


class Written:
    """The file systems that were written to. Use as a context, for any number of restores."""

    def __init__(self, sync: Callable[[int], None] = _sync_file_system) -> None:
        self._sync = sync
        self._open: dict[int, int] = {}

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def note(self, directory: int) -> None:
        """Something is about to be written into this directory."""
        device = os.fstat(directory).st_dev
        if device not in self._open:
            self._open[device] = os.dup(directory)

    def make_durable(self) -> None:
        """Wait until all of it is on the disk; `NotDurableError` when it is not."""
        for fd in self._open.values():
            try:
                self._sync(fd)
            except OSError as error:
                raise NotDurableError(
                    f"what was restored may not be on the disk: {reason_of(error)}; see to the "
                    "disk, then restore again with --overwrite --verify"
                ) from error
