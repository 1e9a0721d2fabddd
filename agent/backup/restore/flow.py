"""Say when a restore may go on: not while it is paused, and no faster than its limit."""

from __future__ import annotations

import threading

from agent.backup.send.control import Control
from agent.backup.send.pace import Bucket
from agent.host import clock

_LOOK_S = 0.2


class Flow:
    """For all threads of one restore. `limit` is in bytes a second, 0 is none."""

    def __init__(self, control: Control | None = None, limit: int = 0) -> None:
        self.limit = limit
        self._control = control or Control()
        self._bucket = Bucket(limit) if limit else None
        self._lock = threading.Lock()

    @property
    def is_paused(self) -> bool:
        """Whether `hold` waits."""
        return self._control.is_paused

    def hold(self) -> None:
        """Wait while paused."""
        self._control.hold(lambda: None)

    def take(self, size: int) -> None:
        """Wait until so many bytes may be fetched, or are paid for."""
        if self._bucket is not None:
            with self._lock:
                now = clock.monotonic()
                turn = now + self._bucket.take(size, now)
            while (left := turn - clock.monotonic()) > 0:
                threading.Event().wait(min(left, _LOOK_S))
                self.hold()
        self.hold()

    def settle(self, taken: int, came: int) -> None:
        """Less came than was taken: chunks are compressed."""
        if self._bucket is not None:
            with self._lock:
                self._bucket.take(came - taken, clock.monotonic())

    @property
    def call_bytes(self) -> int | None:
        """How much is asked for at once, so that it comes evenly; None without a limit."""
        return self._bucket.message_bytes if self._bucket is not None else None
