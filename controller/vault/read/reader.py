"""Give chunks back, in the order of the question, each compared with its id before it leaves.

A damaged chunk ends the answer with an error that names it and its pack; everything
before it was given. Who asks again without it gets the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime

import structlog

from controller.audit import log as audit_log
from controller.db.database import Database
from controller.store.store import ObjectMissingError, ObjectStore, StoreFailedError
from controller.vault import index
from controller.vault.errors import ChunkMissingError, ChunkUnreadableError
from controller.vault.index import Place
from controller.vault.keys import pack_key
from controller.vault.read.reads import WINDOW_BYTES, Range, plan_ranges, plan_windows
from protocol.vault.chunk import ChunkDamagedError, ChunkId, chunk_id

log = structlog.get_logger()

MESSAGE_BYTES = 1024 * 1024
READERS = 4
_AHEAD = 2
_AHEAD_TOGETHER = 32

Found = Mapping[ChunkId, bytes | ChunkDamagedError]


class Reader:
    """Reads for all calls; see the module. `suspect` is told of packs that gave wrong bytes."""

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        *,
        now: Callable[[], datetime],
        suspect: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._db = db
        self._now = now
        self._suspect = suspect
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="vault-read")
        self._ahead = 0
        self._reported: set[tuple[str, ChunkId]] = set()

    async def get(
        self, tenant: str, asked: Sequence[ChunkId], *, sparing: bool = False
    ) -> AsyncGenerator[list[bytes], None]:
        """Yield the chunks in lists of about 1 MiB.

        With `sparing`, little more than that is kept in memory, at the cost of speed.

        Raises `ChunkMissingError` before anything is given when one is not held, and
        `ChunkDamagedError` where a damaged one would have to follow.
        """
        places = await self._db.read(lambda connection: index.locate(connection, tenant, asked))
        for chunk in asked:
            if chunk not in places:
                raise ChunkMissingError(chunk)
        message: list[bytes] = []
        size = 0
        windows = deque(plan_windows(asked, places, MESSAGE_BYTES if sparing else WINDOW_BYTES))
        async with aclosing(self._in_order(tenant, windows, places, sparing)) as answers:
            async for chunk, found in answers:
                if isinstance(found, ChunkDamagedError):
                    if message:
                        yield message
                    await self._report(tenant, chunk, places[chunk], found)
                    raise found
                message.append(found)
                size += len(found)
                if size >= MESSAGE_BYTES:
                    yield message
                    message, size = [], 0
        if message:
            yield message

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    async def _in_order(
        self,
        tenant: str,
        windows: deque[list[ChunkId]],
        places: Mapping[ChunkId, Place],
        sparing: bool,
    ) -> AsyncGenerator[tuple[ChunkId, bytes | ChunkDamagedError], None]:
        """The chunks one after the other, while the next windows are being read."""
        ahead = 0 if sparing else _AHEAD
        reading: deque[tuple[list[ChunkId], asyncio.Task[Found]]] = deque()
        try:
            while windows or reading:
                while windows and (not reading or self._may_read_ahead(len(reading), ahead)):
                    window = windows.popleft()
                    task = asyncio.create_task(self._window(tenant, window, places))
                    reading.append((window, task))
                    self._ahead += 1
                window, task = reading[0]
                found = await task
                reading.popleft()
                self._ahead -= 1
                for chunk in window:
                    yield chunk, found[chunk]
        finally:
            self._ahead -= len(reading)
            for _, task in reading:
                task.cancel()

    def _may_read_ahead(self, already: int, ahead: int) -> bool:
        return already <= ahead and self._ahead < _AHEAD_TOGETHER

    async def _window(
        self, tenant: str, window: Sequence[ChunkId], places: Mapping[ChunkId, Place]
    ) -> Found:
        loop = asyncio.get_running_loop()
        parts = [
            loop.run_in_executor(self._pool, self._range, tenant, one, places)
            for one in plan_ranges(window, places)
        ]
        found: dict[ChunkId, bytes | ChunkDamagedError] = {}
        for part in await asyncio.gather(*parts):
            found.update(part)
        return found

    def _range(self, tenant: str, wanted: Range, places: Mapping[ChunkId, Place]) -> Found:
        key = pack_key(tenant, wanted.pack)
        try:
            content = memoryview(self._store.get(key, wanted.offset, wanted.length))
        except ObjectMissingError:
            return self._elsewhere(tenant, wanted, places)
        except StoreFailedError as error:
            if len(wanted.chunks) == 1:
                chunk = wanted.chunks[0]
                reason = f"pack {wanted.pack} cannot be read ({error})"
                return {chunk: ChunkUnreadableError(chunk, reason)}
            # One bad spot must not take its neighbours with it.
            found: dict[ChunkId, bytes | ChunkDamagedError] = {}
            for chunk in wanted.chunks:
                place = places[chunk]
                alone = Range(wanted.pack, place.offset, place.length, (chunk,))
                found.update(self._range(tenant, alone, places))
            return found
        return {chunk: _checked(chunk, wanted, places[chunk], content) for chunk in wanted.chunks}

    def _elsewhere(self, tenant: str, wanted: Range, places: Mapping[ChunkId, Place]) -> Found:
        """Chunks whose pack is gone: a collection may have moved them since they were located."""
        now = self._db.read_now(lambda c: index.locate(c, tenant, wanted.chunks))
        found: dict[ChunkId, bytes | ChunkDamagedError] = {}
        for chunk in wanted.chunks:
            place = now.get(chunk, places[chunk])
            if place.pack == wanted.pack:
                found[chunk] = _damage(chunk, wanted.pack, "is missing")
            else:
                moved = Range(place.pack, place.offset, place.length, (chunk,))
                found.update(self._range(tenant, moved, now))
        return found

    async def _report(
        self, tenant: str, chunk: ChunkId, place: Place, damage: ChunkDamagedError
    ) -> None:
        """Log damage always, and note it once for the tenant."""
        log.error("chunk_damaged", tenant=tenant, chunk=chunk.hex(), pack=place.pack)
        self._suspect(tenant, place.pack)
        if (tenant, chunk) in self._reported:
            return
        self._reported.add((tenant, chunk))
        at = self._now()
        body = {"chunk": chunk.hex(), "pack": place.pack, "reason": damage.reason}
        is_unreadable = isinstance(damage, ChunkUnreadableError)
        event = "chunk_unreadable" if is_unreadable else "chunk_found_damaged"
        await self._db.write(
            lambda connection: audit_log.append(connection, tenant, "controller", event, body, at)
        )


def _checked(
    chunk: ChunkId, read: Range, place: Place, content: memoryview
) -> bytes | ChunkDamagedError:
    start = place.offset - read.offset
    stored = bytes(content[start : start + place.length])
    if chunk_id(stored) != chunk:
        return _damage(chunk, read.pack, "holds other bytes than its id says")
    return stored


def _damage(chunk: ChunkId, pack: str, reason: str) -> ChunkDamagedError:
    return ChunkDamagedError(chunk, f"pack {pack} {reason}")
