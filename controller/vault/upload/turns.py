"""Let a few pieces of work go on at a time; the next one is whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.vault.upload.fairness import FairQueue


class Turns:
    """So many places, shared as `FairQueue` says; belongs to one event loop."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()

    @property
    def waiting(self) -> int:
        """How many pieces wait."""
        return len(self._queue)

    def waits(self, tenant: str) -> bool:
        """Whether a tenant has work that waits."""
        return tenant in self._queue

    @asynccontextmanager
    async def turn(self, tenant: str, machine: str, cost: int) -> AsyncIterator[None]:
        """Wait for a place for a piece of work of `cost` bytes, and keep it meanwhile."""
        called = asyncio.get_running_loop().create_future()
        self._queue.add(tenant, machine, cost, called)
        self._call()
        try:
            await called
        except asyncio.CancelledError:
            if called.cancelled():
                self._queue.drop(tenant, machine, called)
            else:
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._free += 1
        self._call()

    def _call(self) -> None:
        while self._free and len(self._queue):
            self._free -= 1
            self._queue.take().set_result(None)
