"""How much of the controller's memory all uploads together may fill."""

from __future__ import annotations

import asyncio


class Room:
    """A count of bytes with a limit; belongs to one event loop.

    Taking never waits: whoever wants to read more asks `wait` first, so the limit is
    passed by one message for each upload at most.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._used = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def used_bytes(self) -> int:
        """What is taken now."""
        return self._used

    @property
    def is_short(self) -> bool:
        """Nobody should read more, and whoever keeps a pack open should close it."""
        return self._used >= self._capacity

    def take(self, count: int) -> None:
        """Note that so many bytes are in memory."""
        self._used += count
        if self.is_short:
            self._free.clear()

    def give(self, count: int) -> None:
        """Note that they are not any more."""
        self._used -= count
        if not self.is_short:
            self._free.set()

    async def wait(self) -> None:
        """Return when there is room."""
        await self._free.wait()
