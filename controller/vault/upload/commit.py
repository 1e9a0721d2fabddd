"""Make a restore point of what a session has sent. The only commit point, idempotent.

The record is believed when the very machine that calls has signed it, and it is
complete by construction: its root is held, and a tree chunk is only ever held with
its children. Record first, then the row and the audit entry in one transaction. Whoever
goes away in between changes nothing; what a crash cuts short there is taken in later,
see `controller.vault.upload.adopt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from sqlalchemy import Connection, insert, select

from controller.audit import log as audit_log
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.db.schema import points
from controller.store.store import ObjectStore
from controller.vault import freezing, index
from controller.vault.errors import ChunkMissingError, SessionLostError
from controller.vault.keys import point_key
from controller.vault.points import newest
from controller.vault.upload.sessions import Session, Sessions, check_open, end, find, point_of
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import IdentityError, MachineIdentity
from protocol.ids import PointId
from protocol.vault.chunk import ChunkId, Kind
from protocol.vault.point import UNREADABLE, RestorePoint, decode_envelope, point_hash, verify_point

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Committed:
    """A restore point that exists."""

    point: PointId
    received_at: datetime


class Committer:
    """Commits sessions; see the module."""

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        trust: Trust,
        sessions: Sessions,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._db = db
        self._trust = trust
        self._sessions = sessions
        self._now = now

    async def commit(
        self, caller: MachineIdentity, session: str, fence: int, record: bytes
    ) -> Committed:
        """Commit `record`, the encoded envelope of a restore point.

        The same bytes again get the same answer, whatever became of the session. Raises
        ALREADY_EXISTS for other bytes under a point's id, `SessionLostError`,
        `ChunkMissingError`, PRECONDITION when another point came in between, and what
        `believe` and `verify_point` raise.
        """
        return await asyncio.shield(self._whole(caller, session, fence, record))

    async def _whole(
        self, caller: MachineIdentity, session: str, fence: int, record: bytes
    ) -> Committed:
        wanted = point_of(session)
        async with self._sessions.turn(caller):
            done = await self._db.read(lambda c: _committed(c, caller, wanted, record))
            if done is not None:
                return done
            at = self._now()
            point = await asyncio.to_thread(self._believe, caller, wanted, record, at)
            await self._db.read(lambda c: _check(c, caller, session, fence, point, at))
            key = point_key(caller.tenant, caller.machine, wanted)
            await asyncio.to_thread(self._keep, key, record)
            committed = await self._db.write(
                lambda c: _commit(c, caller, session, fence, point, record, at, key)
            )
            self._sessions.ended(caller)
            return committed

    def _believe(
        self, caller: MachineIdentity, wanted: PointId, record: bytes, at: datetime
    ) -> RestorePoint:
        """The restore point, signed by the caller and named as its session says."""
        envelope = decode_envelope(record)
        try:
            point = verify_point(envelope)
            leaf = x509.load_der_x509_certificate(envelope.chain[0])
            signer = self._trust.believed(leaf, at)
        except UNREADABLE as error:
            raise IdentityError(
                f"the restore point carries an unreadable certificate: {error}",
                code=Code.BAD_SIGNATURE,
            ) from error
        if signer != caller:
            raise IdentityError(
                "the restore point was signed by another machine", code=Code.BAD_SIGNATURE
            )
        if (point.id, point.tenant, point.machine) != (wanted, caller.tenant, caller.machine):
            raise InvalidError(
                f"the record is of {point.id} of {point.machine} of {point.tenant}, "
                f"the session of {wanted} of {caller.machine} of {caller.tenant}"
            )
        return point

    def _keep(self, key: str, record: bytes) -> None:
        if not self._store.put(key, [record]) and self._store.get(key) != record:
            raise _other_bytes(key.rpartition("/")[2])


def _other_bytes(point: str) -> SteadError:
    return SteadError(
        f"the restore point {point} exists with another record; begin a new one",
        code=Code.ALREADY_EXISTS,
    )


def _committed(
    connection: Connection, caller: MachineIdentity, point: PointId, record: bytes
) -> Committed | None:
    row = connection.execute(select(points).where(points.c.id == point)).one_or_none()
    if row is None:
        return None
    if row.machine_id != caller.machine or row.record != record:
        raise _other_bytes(point)
    return Committed(point, row.received_at)


def _check(
    connection: Connection,
    caller: MachineIdentity,
    session: str,
    fence: int,
    point: RestorePoint,
    at: datetime,
) -> Session:
    """The session, once it is seen to be open and to hold what a restore point promises."""
    found = find(connection, caller, session)
    check_open(found, at)
    if found.fence != fence:
        raise SessionLostError(
            f"the session has fence {found.fence} by now, this is {fence}; begin again with "
            "the same point"
        )
    check_place(connection, point)
    return found


def check_place(connection: Connection, point: RestorePoint) -> None:
    """Raise `SteadError` unless the point follows its machine's newest and its tree is held."""
    last = newest(connection, point.machine)
    if point.previous != (last.hash if last is not None else None):
        raise SteadError(
            "the record does not follow the machine's newest restore point "
            f"({last.id if last is not None else 'there is none'}); begin again",
            code=Code.PRECONDITION,
        )
    root = ChunkId(point.root)
    place = index.locate(connection, point.tenant, [root]).get(root)
    if place is None or not index.held(connection, point.tenant, [root]):
        raise ChunkMissingError(root)
    if place.kind is not Kind.TREE:
        raise InvalidError(f"the root {root.hex()} is no tree chunk")


def _commit(
    connection: Connection,
    caller: MachineIdentity,
    session: str,
    fence: int,
    point: RestorePoint,
    record: bytes,
    at: datetime,
    key: str,
) -> Committed:
    # Taken in meanwhile, by a collection that found a record without a row.
    done = _committed(connection, caller, PointId(point.id), record)
    if done is not None:
        return done
    found = _check(connection, caller, session, fence, point, at)
    return receive(connection, found, point, record, at, key)


def receive(
    connection: Connection,
    session: Session,
    point: RestorePoint,
    record: bytes,
    at: datetime,
    key: str,
) -> Committed:
    """Make a restore point of a record that is durable and was checked; its session ends."""
    last = newest(connection, point.machine)
    # The order of receipt is the order of the chain, also when the clock steps back.
    received_at = at if last is None else max(at, last.received_at + _TICK)
    enter(connection, point, record, received_at, key)
    end(connection, session)
    audit_log.append(
        connection,
        session.tenant,
        f"machine/{session.machine}",
        "restore_point_committed",
        {
            "point": point.id,
            "hash": point_hash(decode_envelope(record).body).hex(),
            "root": point.root.hex(),
            "files": point.totals.files,
            "bytes": point.totals.bytes,
            "new_bytes": point.totals.new_bytes,
            "skipped": point.totals.skipped,
        },
        received_at,
    )
    freezing.note_newest(connection, freezing.Machine(session.machine, session.tenant), received_at)
    return Committed(PointId(point.id), received_at)


def enter(
    connection: Connection, point: RestorePoint, record: bytes, received_at: datetime, key: str
) -> None:
    """Insert the row of a restore point whose record is durable."""
    connection.execute(
        insert(points),
        {
            "id": point.id,
            "tenant_id": point.tenant,
            "machine_id": point.machine,
            "received_at": received_at,
            "started_at": point.started_at,
            "record": record,
            "root_id": point.root,
            "files": point.totals.files,
            "bytes": point.totals.bytes,
            "new_bytes": point.totals.new_bytes,
            "skipped": point.totals.skipped,
            "object_key": key,
        },
    )
