"""Take uploads in: chunks into packs, packs onto the disk, then the index, then the answer.

An upload is read while its previous packs are being made durable. What it keeps in
memory is bounded for itself (packs in flight) and together with all others (`Room`);
beyond that nothing is read, and the sender feels it. Processors and disk are shared
between tenants and machines by turns, see `fairness`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import structlog

from controller.db.database import Database
from controller.store.store import ObjectStore
from controller.vault import index
from controller.vault.claims import Claims
from controller.vault.keys import pack_key
from controller.vault.upload.holding import Hold
from controller.vault.upload.packing import GrowingPack, Packing
from controller.vault.upload.room import Room
from controller.vault.upload.turns import Turns
from protocol.vault.chunk import Kind
from protocol.vault.pack import PACK_BYTES, PackId

log = structlog.get_logger()

ROOM_BYTES = 512 * 1024 * 1024
PACKS_IN_FLIGHT = 2
CHECKERS = 2
DISK_WRITERS = 4
_LOOK_S = 1.0
_IDLE_LOOKS = 60


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message of an upload: whole stored chunks, and whether to make all durable now.

    `session` is needed in the first message only.
    """

    chunks: Sequence[bytes]
    flush: bool = False
    session: str = ""


Admit = Callable[[Arrival], Awaitable[None]]


class Writer:
    """What all uploads share; see the module."""

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        *,
        claims: Claims,
        now: Callable[[], datetime],
        room_bytes: int = ROOM_BYTES,
        pack_bytes: int = PACK_BYTES,
    ) -> None:
        self.store = store
        self.db = db
        self.claims = claims
        self.now = now
        self.pack_bytes = pack_bytes
        self.room = Room(room_bytes)
        self.checking = ThreadPoolExecutor(CHECKERS, thread_name_prefix="vault-check")
        self.writing = ThreadPoolExecutor(DISK_WRITERS, thread_name_prefix="vault-write")
        self.turns_to_check = Turns(CHECKERS)
        self.turns_to_write = Turns(DISK_WRITERS)
        self._leaving: set[asyncio.Task[None]] = set()

    async def put(
        self,
        tenant: str,
        machine: str,
        arrivals: AsyncIterator[Arrival],
        admit: Admit,
        hold: Hold,
    ) -> AsyncGenerator[int, None]:
        """Store an upload; yields how many of its chunks, from the first, are durable.

        `admit` is awaited with every message and raises when its session is over; it
        enters `hold`, which is left when nothing of the upload is under way. Raises
        what `Packing.absorb`, the store and the database raise; what was yielded before
        stays durable.
        """
        upload = _Upload(self, tenant, machine, hold)
        reading = asyncio.create_task(upload.read(arrivals, admit))
        reading.add_done_callback(upload.landed)
        try:
            with self.room.entered(tenant):
                async for durable in upload.progress():
                    yield durable
        finally:
            reading.cancel()
            leaving = asyncio.create_task(upload.leave(reading))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Wait for what is under way, then end the threads."""
        while self._leaving:
            await asyncio.wait(self._leaving)
        self.checking.shutdown()
        self.writing.shutdown()


class _Upload:
    """One stream of chunks."""

    def __init__(self, writer: Writer, tenant: str, machine: str, hold: Hold) -> None:
        self._writer = writer
        self._tenant = tenant
        self._machine = machine
        self._hold = hold
        self._packing = Packing(writer.pack_bytes)
        self._slots = asyncio.Semaphore(PACKS_IN_FLIGHT)
        self._settling: set[asyncio.Task[None]] = set()
        self._checking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._flushed = False
        self._done = False
        self._failure: BaseException | None = None
        self._broken: Exception | None = None

    async def progress(self) -> AsyncIterator[int]:
        """Yield the count of durable chunks whenever it grows and after each flush."""
        said = 0
        while not self._done:
            await self._changed.wait()
            self._changed.clear()
            durable = self._packing.advance()
            flushed, self._flushed = self._flushed, False
            if durable > said or flushed:
                said = durable
                yield durable
            if self._failure is not None:
                raise self._failure
        durable = self._packing.advance()
        if durable > said:
            yield durable

    async def read(self, arrivals: AsyncIterator[Arrival], admit: Admit) -> None:
        """Read the stream to its end and make everything durable."""
        room = self._writer.room
        while True:
            if room.is_short(self._tenant):
                await self._seal()
                await room.wait(self._tenant)
            arrival = await self._next(arrivals)
            if arrival is None:
                break
            await admit(arrival)
            if arrival.chunks:
                await self._absorb(arrival.chunks)
                await self._send_off()
                self._changed.set()
            if arrival.flush:
                await self._seal()
                await self._settled()
                self._flushed = True
                self._changed.set()
        await self._seal()
        await self._settled()
        self._done = True
        self._changed.set()

    def landed(self, task: asyncio.Task[None]) -> None:
        """Keep the first failure of a task for `progress` to raise."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failure is None:
            self._failure = error
            self._changed.set()

    async def leave(self, reading: asyncio.Task[None]) -> None:
        """Make durable what came before the stream broke off; nobody waits for it."""
        try:
            await asyncio.wait({reading})
            if self._checking is not None:
                await asyncio.wait({self._checking})
            known = self._failure
            await self._seal()
            await self._settled()
        finally:
            self._hold.leave()
        if self._failure is not known:
            log.warning("vault_upload_cut_short", tenant=self._tenant, error=str(self._failure))

    async def _next(self, arrivals: AsyncIterator[Arrival]) -> Arrival | None:
        """The next message; None at the end. Closes packs while nothing comes."""
        waiting = asyncio.ensure_future(anext(arrivals, None))
        looks = 0
        try:
            while not (await asyncio.wait({waiting}, timeout=_LOOK_S))[0]:
                looks += 1
                if self._writer.room.is_short(self._tenant) or looks == _IDLE_LOOKS:
                    await self._seal()
            return waiting.result()
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})

    async def _absorb(self, chunks: Sequence[bytes]) -> None:
        # Cancelling this must not leave a thread at work on packs that are being closed.
        self._checking = asyncio.create_task(self._check(chunks))
        self._checking.add_done_callback(self.landed)
        await asyncio.shield(self._checking)

    async def _check(self, chunks: Sequence[bytes]) -> None:
        packing, room = self._packing, self._writer.room
        size, before = sum(map(len, chunks)), packing.kept_bytes
        room.take(self._tenant, size)
        try:
            async with self._writer.turns_to_check.turn(self._tenant, self._machine, size):
                await asyncio.get_running_loop().run_in_executor(
                    self._writer.checking, packing.absorb, chunks, self._hold.held
                )
        finally:
            room.give(self._tenant, size - (packing.kept_bytes - before))

    async def _seal(self) -> None:
        self._packing.seal()
        await self._send_off()

    async def _send_off(self) -> None:
        while self._packing.has_sealed:
            await self._slots.acquire()
            pack = self._packing.take_sealed()
            # Whoever holds a tree chunk may rely on its children: they are durable first.
            before = set(self._settling) if pack.kind is Kind.TREE else set()
            task = asyncio.create_task(self._settle(pack, before))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
            task.add_done_callback(self.landed)

    async def _settled(self) -> None:
        if self._settling:
            await asyncio.wait(set(self._settling))

    async def _settle(self, pack: GrowingPack, before: set[asyncio.Task[None]]) -> None:
        try:
            if before:
                await asyncio.wait(before)
            self._refuse_after_failure()
            size = pack.builder.finished_bytes
            async with self._writer.turns_to_write.turn(self._tenant, self._machine, size):
                name, length = await asyncio.get_running_loop().run_in_executor(
                    self._writer.writing, self._store, pack
                )
            at = self._writer.now()
            try:
                await self._writer.db.write(
                    lambda connection: index.record_pack(
                        connection, self._tenant, name, pack.kind, length, pack.placed, at
                    )
                )
            finally:
                self._writer.claims.give(self._tenant, name)
            pack.settle()
            self._changed.set()
        except Exception as error:
            self._broken = error
            raise
        finally:
            self._writer.room.give(self._tenant, pack.kept_bytes)
            self._slots.release()

    def _refuse_after_failure(self) -> None:
        """What follows a pack that was lost may depend on it."""
        if self._broken is not None:
            raise self._broken

    def _store(self, pack: GrowingPack) -> tuple[PackId, int]:
        length = pack.builder.finished_bytes
        name, pieces = pack.builder.finish()
        self._writer.claims.take(self._tenant, name)
        try:
            self._writer.store.put(pack_key(self._tenant, name), pieces)
        except BaseException:
            self._writer.claims.give(self._tenant, name)
            raise
        return name, length
