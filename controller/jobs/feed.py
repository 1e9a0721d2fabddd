"""Wakes those who wait for something to happen, inside one process.

A wake-up is a hint and carries nothing: whoever is woken reads the database, which
alone is true. So a hint too many costs a query, and a lost one costs the seconds
until the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta


class Feed:
    """Topics are ids: of jobs for those who watch, of machines for links."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def wake(self, topic: str) -> None:
        """Wake everybody who listens to the topic."""
        for event in self._waiting.get(topic, ()):
            event.set()

    @contextmanager
    def listening(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set at every wake-up of the topic; the listener clears it."""
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[topic]
            waiting.discard(event)
            if not waiting:
                del self._waiting[topic]


async def set_or_timeout(event: asyncio.Event, after: timedelta) -> None:
    """Wait for the event, or for the time when a lost hint is made good."""
    try:
        async with asyncio.timeout(after.total_seconds()):
            await event.wait()
    except TimeoutError:
        return
