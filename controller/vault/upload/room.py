"""How much of the controller's memory all uploads together may fill, and each tenant's part.

As long as there is room, whoever comes first may fill it. When it is short, only tenants
that have less than their equal part may read on: one that fills it with many machines
does not keep the others waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """A count of bytes with a limit; belongs to one event loop.

    Taking never waits: whoever wants to read more asks `wait` first. So the limit is passed
    by what those read who had less than their part, never beyond twice the limit, and
    by one message for each upload.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._used: Counter[str] = Counter()
        self._uploads: Counter[str] = Counter()
        self._given = asyncio.Event()

    @property
    def used_bytes(self) -> int:
        """What is taken now."""
        return self._used.total()

    @contextmanager
    def entered(self, tenant: str) -> Iterator[None]:
        """Count an upload, for as long as it lasts."""
        self._uploads[tenant] += 1
        try:
            yield
        finally:
            self._uploads[tenant] -= 1
            if not self._uploads[tenant]:
                del self._uploads[tenant]
            self._wake()

    def is_short(self, tenant: str) -> bool:
        """This tenant should read no more, and close the packs that it keeps open."""
        used = self.used_bytes
        if used < self._capacity:
            return False
        part = self._capacity / max(1, len(self._uploads))
        return used >= 2 * self._capacity or self._used[tenant] >= part

    def take(self, tenant: str, count: int) -> None:
        """Note that so many bytes are in memory."""
        self._used[tenant] += count

    def give(self, tenant: str, count: int) -> None:
        """Note that they are not any more."""
        self._used[tenant] -= count
        if not self._used[tenant]:
            del self._used[tenant]
        self._wake()

    async def wait(self, tenant: str) -> None:
        """Return when there is room."""
        while self.is_short(tenant):
            await self._given.wait()

    def _wake(self) -> None:
        self._given.set()
        self._given = asyncio.Event()
