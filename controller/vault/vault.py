"""The vault as its callers see it: who may do what, and which part does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial

from controller import clock
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.store.store import ObjectStore
from controller.vault import points
from controller.vault.claims import Claims
from controller.vault.collect.collector import Collector
from controller.vault.collect.condemn import TERMS, Means, Terms
from controller.vault.collect.steady import Steady
from controller.vault.errors import LimitError
from controller.vault.keeper import Keeper
from controller.vault.points import StoredPoint
from controller.vault.read.reader import Reader
from controller.vault.scrub.scrubber import Scrub
from controller.vault.upload.adopt import adopt_latest
from controller.vault.upload.commit import Committed, Committer
from controller.vault.upload.holding import Hold, hold
from controller.vault.upload.pins import Pins
from controller.vault.upload.sessions import FLOOR_BYTES, LEASE, Begun, Sessions
from controller.vault.upload.streams import Streams
from controller.vault.upload.writer import ROOM_BYTES, Arrival, Writer
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import Identity, MachineIdentity, OperatorIdentity
from protocol.ids import TenantId, check_id
from protocol.vault.chunk import ID_BYTES, ChunkId
from protocol.vault.pack import PACK_BYTES

MAX_ASKED = 4096
MAX_SENT = 16 * 1024
STREAMS = 16
"""Uploads, and as many downloads, that one caller may have at a time."""
CROWD = 32
"""With more downloads than this, each newcomer gets smaller buffers."""


class Vault:
    """Chunks and restore points of all tenants.

    `store` and `db` belong to the caller; `close` waits for uploads that are under way.
    """

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        trust: Trust,
        *,
        now: Callable[[], datetime] = clock.now,
        lease: timedelta = LEASE,
        floor_bytes: int = FLOOR_BYTES,
        room_bytes: int = ROOM_BYTES,
        pack_bytes: int = PACK_BYTES,
        terms: Terms = TERMS,
        ticks: Callable[[], float] = clock.boottime,
    ) -> None:
        self._store, self._db = store, db
        self._pins, claims = Pins(), Claims()
        self._sessions = Sessions(
            store, db, self._pins, now=now, lease=lease, floor_bytes=floor_bytes
        )
        self._writer = Writer(
            store, db, claims=claims, now=now, room_bytes=room_bytes, pack_bytes=pack_bytes
        )
        self._committer = Committer(store, db, trust, self._sessions, now=now)
        self.scrub = Scrub(store, db, claims, now=now)
        """Looks at what is stored, all the time."""
        self._reader = Reader(store, db, now=now, suspect=self.scrub.suspect)
        means = Means(
            store=store,
            db=db,
            pins=self._pins,
            claims=claims,
            scratch=db.folder,
            now=now,
            terms=terms,
            forget_sessions=self._sessions.forget,
            pack_bytes=pack_bytes,
            collected=self.scrub.sample,
        )
        self.collector = Collector(means, Steady(now, ticks))
        self.keeper = Keeper(self.collector, db, now=now)
        """Forgets by the rules and collects."""
        self._uploads = Streams(STREAMS)
        self._downloads = Streams(STREAMS)
        self._now = now

    @property
    def lease(self) -> timedelta:
        """How long a session lives without being used."""
        return self._sessions.lease

    def time(self) -> datetime:
        """The controller's clock, as sessions see it."""
        return self._now()

    async def begin(self, caller: MachineIdentity, point: str) -> Begun:
        """See `Sessions.begin`. First what the session before left behind is taken in."""
        async with self._sessions.turn(caller):
            await asyncio.to_thread(adopt_latest, self._store, self._db, caller, self._now())
        return await self._sessions.begin(caller, point)

    async def has(
        self, caller: MachineIdentity, session: str, asked: Sequence[bytes]
    ) -> list[bool]:
        """Which of the chunks are held, in the order of the question; those stay."""
        wanted = check_ids(asked)
        await self._sessions.use(caller, session)
        pin = partial(self._pins.add, caller.tenant, session)
        found = await asyncio.to_thread(hold, self._db, caller.tenant, wanted, pin)
        return [chunk in found for chunk in wanted]

    async def put(
        self, caller: MachineIdentity, arrivals: AsyncIterator[Arrival]
    ) -> AsyncGenerator[int, None]:
        """See `Writer.put`; the first arrival names the session."""
        session = ""
        relied_on = Hold(self._pins, self._db, caller.tenant)

        async def admit(arrival: Arrival) -> None:
            nonlocal session
            session = session or arrival.session
            if arrival.session not in ("", session):
                raise InvalidError("a stream belongs to one session")
            if len(arrival.chunks) > MAX_SENT:
                raise LimitError(f"send at most {MAX_SENT} chunks in a message")
            await self._sessions.use(caller, session)
            relied_on.enter(session)

        with self._uploads.entered(caller.uri()):
            upload = self._writer.put(caller.tenant, caller.machine, arrivals, admit, relied_on)
            async with aclosing(upload):
                async for durable in upload:
                    yield durable

    async def commit(
        self, caller: MachineIdentity, session: str, fence: int, record: bytes
    ) -> Committed:
        """See `Committer.commit`."""
        done = await self._committer.commit(caller, session, fence, record)
        self.scrub.sample(caller.tenant, done.point)
        return done

    async def get(
        self, caller: Identity, tenant: str, asked: Sequence[bytes]
    ) -> AsyncGenerator[list[bytes], None]:
        """See `Reader.get`. A machine reads its own tenant's chunks, whatever it names."""
        readable, wanted = _readable(caller, tenant), check_ids(asked)
        with self._downloads.entered(caller.uri()):
            crowded = self._downloads.total > CROWD
            answers = self._reader.get(readable, wanted, sparing=crowded)
            async with aclosing(answers):
                async for chunks in answers:
                    yield chunks

    async def list_points(
        self, caller: Identity, machine: str, limit: int, older_than: str = ""
    ) -> list[StoredPoint]:
        """See `points.list_points`."""
        return await points.list_points(self._db, caller, machine, limit, older_than)

    async def close(self) -> None:
        """Wait for what is under way and end the threads."""
        await asyncio.to_thread(self.keeper.close)
        await self._writer.close()
        self._reader.close()
        await asyncio.to_thread(self.scrub.close)


def check_ids(asked: Sequence[bytes]) -> list[ChunkId]:
    """The ids of a question; `LimitError` or `InvalidError` when it cannot be asked."""
    if len(asked) > MAX_ASKED:
        raise LimitError(f"ask for at most {MAX_ASKED} chunks at a time, not {len(asked)}")
    if any(len(chunk) != ID_BYTES for chunk in asked):
        raise InvalidError(f"a chunk's id has {ID_BYTES} bytes")
    return [ChunkId(chunk) for chunk in asked]


def _readable(caller: Identity, tenant: str) -> TenantId:
    match caller:
        case MachineIdentity(tenant=own):
            if tenant not in ("", own):
                raise SteadError(
                    "a machine reads its own tenant's vault only", code=Code.WRONG_TENANT
                )
            return own
        case OperatorIdentity():
            wanted = TenantId(check_id("tn", tenant))
            if not caller.may_see(wanted):
                raise NotFoundError(f"there is no tenant {wanted}; see `stead tenant ls`")
            return wanted
        case _:
            raise InvalidError("chunks are read by machines and operators")
