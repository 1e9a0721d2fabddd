"""Whose backup is under way: one open session a machine, with a lease and a fence.

A session's id is its restore point's with another prefix, so asking again with the
same point finds the same session. A lease is renewed by use. A newer session of the
machine ends the older one, whose fence is lower from then on. The row stays: when a
session began is what collection has to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, func, insert, select, update

from controller.db.database import Database
from controller.db.schema import machines, points, vault_sessions
from controller.store.store import ObjectStore, StoreFullError
from controller.vault.errors import SessionLostError
from controller.vault.points import newest
from controller.vault.upload.losses import must_read_everything
from controller.vault.upload.pins import Pins
from protocol.errors import Code, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import PointId, SessionId, check_id

LEASE = timedelta(minutes=15)
FLOOR_BYTES = 512 * 1024 * 1024
"""Below so much free space no backup begins: those under way and collection need it."""


class State(StrEnum):
    """How a session stands."""

    OPEN = "open"
    COMMITTED = "committed"
    SUPERSEDED = "superseded"
    # Its lease ran out and the collector has seen it: no clock brings it back.
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its row has it."""

    id: SessionId
    tenant: str
    machine: str
    fence: int
    parent: PointId | None
    lease_until: datetime
    state: State


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that may be used, and the machine's newest record's hash."""

    session: Session
    parent_hash: bytes | None
    is_new: bool = True
    """Whether it got a new fence: what was held for an older one may be gone."""


def session_of(point: str) -> SessionId:
    """The session in which a restore point is made; `InvalidError` when it is no point's id."""
    return SessionId("vs_" + check_id("rp", point).removeprefix("rp_"))


def point_of(session: str) -> PointId:
    """The restore point that a session makes; `InvalidError` when it is no session's id."""
    return PointId("rp_" + check_id("vs", session).removeprefix("vs_"))


class Sessions:
    """Begins, renews and ends sessions."""

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        pins: Pins,
        *,
        now: Callable[[], datetime],
        lease: timedelta = LEASE,
        floor_bytes: int = FLOOR_BYTES,
    ) -> None:
        self._store = store
        self._db = db
        self._pins = pins
        self._now = now
        self.lease = lease
        self._floor = floor_bytes
        # What the rows say, so that a message of an upload costs no query.
        self._known: dict[str, Session] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def begin(self, caller: MachineIdentity, point: str) -> Begun:
        """Open a session for a restore point to be, or take it up again.

        Raises `StoreFullError` below the floor of free space, `SessionLostError` when a
        newer backup took over, and ALREADY_EXISTS when the point is committed.
        """
        free = await asyncio.to_thread(self._store.free_bytes)
        if free is not None and free < self._floor:
            raise StoreFullError("the vault", free_bytes=free, needed_bytes=self._floor)
        identity = session_of(point)
        at = self._now()
        async with self.turn(caller):
            begun = await self._db.write(
                lambda connection: _begin(connection, caller, identity, at, self.lease)
            )
            self._known[caller.machine] = begun.session
            if begun.is_new:
                self._pins.began(caller.tenant, identity, begun.session.fence)
        return begun

    async def use(self, caller: MachineIdentity, identity: str) -> Session:
        """The caller's open session, its lease renewed; `SessionLostError` otherwise."""
        known = self._known.get(caller.machine)
        if known is None or known.id != identity:
            known = await self._db.read(lambda connection: find(connection, caller, identity))
        at = self._now()
        check_open(known, at)
        if known.lease_until - at < self.lease * 3 / 4:
            until = at + self.lease
            if not await self._db.write(lambda connection: _renew(connection, identity, until)):
                self._known.pop(caller.machine, None)
                known = await self._db.read(lambda connection: find(connection, caller, identity))
                check_open(known, at)
            known = replace(known, lease_until=until)
        now_known = self._known.get(caller.machine)
        if now_known is None or now_known.fence <= known.fence:
            self._known[caller.machine] = known
        return known

    def forget(self, lapsed: Iterable[str]) -> None:
        """These sessions were ended in the rows: ask the rows for them. For any thread."""
        gone = set(lapsed)
        for machine, known in list(self._known.items()):
            if known.id in gone:
                self._known.pop(machine, None)

    def turn(self, caller: MachineIdentity) -> asyncio.Lock:
        """Held while a session of the machine begins or is committed."""
        return self._turns.setdefault(caller.machine, asyncio.Lock())

    def ended(self, caller: MachineIdentity) -> None:
        """The machine's session was committed: ask the rows from now on."""
        self._known.pop(caller.machine, None)


def find(connection: Connection, caller: MachineIdentity, identity: str) -> Session:
    """The caller's session of this id; `SessionLostError` when there is none."""
    found = _row(connection, identity)
    if found is None or (found.tenant, found.machine) != (caller.tenant, caller.machine):
        raise SessionLostError("there is no such session; begin the backup again")
    return found


def of_point(connection: Connection, point: str) -> Session | None:
    """The session in which a restore point is made; None when the database knows of none."""
    return _row(connection, session_of(point))


def latest(connection: Connection, machine: str) -> Session | None:
    """The session that a machine began last."""
    table = vault_sessions
    identity = connection.scalar(
        select(table.c.id)
        .where(table.c.machine_id == machine)
        .order_by(table.c.fence.desc())
        .limit(1)
    )
    return None if identity is None else _row(connection, identity)


def check_open(session: Session, at: datetime) -> None:
    """Raise `SessionLostError` unless the session may still be used."""
    if session.state is State.SUPERSEDED:
        raise SessionLostError(
            "a newer backup of this machine took this one's place; begin again with a new point"
        )
    if session.state is State.COMMITTED:
        raise SessionLostError("this backup is committed; begin again with a new point")
    if session.state is State.LAPSED or at >= session.lease_until:
        raise SessionLostError(
            f"the session ran out at {session.lease_until:%Y-%m-%d %H:%M}Z; begin again with the "
            "same point, what was acknowledged is kept"
        )


def end(connection: Connection, session: Session) -> None:
    """Mark a session as committed."""
    connection.execute(
        update(vault_sessions)
        .where(vault_sessions.c.id == session.id)
        .values(state=State.COMMITTED.value)
    )


def _row(connection: Connection, identity: str) -> Session | None:
    row = connection.execute(
        select(vault_sessions).where(vault_sessions.c.id == identity)
    ).one_or_none()
    if row is None:
        return None
    return Session(
        id=SessionId(row.id),
        tenant=row.tenant_id,
        machine=row.machine_id,
        fence=row.fence,
        parent=row.parent_point,
        lease_until=row.lease_until,
        state=State(row.state),
    )


def _begin(
    connection: Connection,
    caller: MachineIdentity,
    identity: SessionId,
    at: datetime,
    lease: timedelta,
) -> Begun:
    _check_machine(connection, caller)
    point = point_of(identity)
    if connection.scalar(select(points.c.id).where(points.c.id == point)) is not None:
        raise SteadError(
            f"the restore point {point} is committed already; begin a new one",
            code=Code.ALREADY_EXISTS,
        )
    found = _row(connection, identity)
    if found is not None and (found.tenant, found.machine) != (caller.tenant, caller.machine):
        raise SteadError(
            f"the restore point {point} is another machine's; begin a new one",
            code=Code.ALREADY_EXISTS,
        )
    parent = newest(connection, caller.machine)
    parent_id = parent.id if parent is not None else None
    if must_read_everything(connection, caller.tenant, caller.machine):
        parent_id = None
    is_new = found is None or found.state is State.LAPSED or _has_run_out(found, at)
    if found is not None and not is_new:
        check_open(found, at)
        session = replace(found, lease_until=at + lease)
        _renew(connection, identity, session.lease_until)
    else:
        session = Session(
            id=identity,
            tenant=caller.tenant,
            machine=caller.machine,
            fence=_next_fence(connection, caller),
            parent=parent_id,
            lease_until=at + lease,
            state=State.OPEN,
        )
        _enter(connection, session, at, is_new=found is None)
    return Begun(session, parent.hash if parent is not None else None, is_new)


def _has_run_out(session: Session, at: datetime) -> bool:
    return session.state is State.OPEN and at >= session.lease_until


def lapse(connection: Connection, tenant: str, at: datetime) -> tuple[list[str], list[str]]:
    """End the tenant's sessions whose lease ran out; those that live, and those that ended."""
    rows = connection.execute(
        select(vault_sessions.c.id, vault_sessions.c.lease_until).where(
            vault_sessions.c.tenant_id == tenant, vault_sessions.c.state == State.OPEN.value
        )
    ).all()
    dead = [row.id for row in rows if at >= row.lease_until]
    fence_off(connection, dead)
    return [row.id for row in rows if at < row.lease_until], dead


def fence_off(connection: Connection, sessions: Iterable[str]) -> None:
    """End open sessions: they cannot commit, and begin again with the same point."""
    for identity in sessions:
        connection.execute(
            update(vault_sessions)
            .where(vault_sessions.c.id == identity, vault_sessions.c.state == State.OPEN.value)
            .values(state=State.LAPSED.value)
        )


def _check_machine(connection: Connection, caller: MachineIdentity) -> None:
    known = connection.scalar(
        select(machines.c.id).where(
            machines.c.id == caller.machine, machines.c.tenant_id == caller.tenant
        )
    )
    if known is None:
        raise SteadError(
            "the controller does not know this machine; enroll it again",
            code=Code.UNKNOWN_MACHINE,
        )


def _next_fence(connection: Connection, caller: MachineIdentity) -> int:
    highest = connection.scalar(
        select(func.max(vault_sessions.c.fence)).where(
            vault_sessions.c.machine_id == caller.machine
        )
    )
    return int(highest or 0) + 1


def _enter(connection: Connection, session: Session, at: datetime, *, is_new: bool) -> None:
    """Write a session that has a new fence, and end the machine's others.

    One that is begun again keeps when it was begun first: what its machine relies on may be
    as old as that, see `losses`.
    """
    connection.execute(
        update(vault_sessions)
        .where(
            vault_sessions.c.machine_id == session.machine,
            vault_sessions.c.state == State.OPEN.value,
            vault_sessions.c.id != session.id,
        )
        .values(state=State.SUPERSEDED.value)
    )
    values = {
        "fence": session.fence,
        "parent_point": session.parent,
        "lease_until": session.lease_until,
        "state": session.state.value,
    }
    if is_new:
        keys = {"id": session.id, "tenant_id": session.tenant, "machine_id": session.machine}
        connection.execute(insert(vault_sessions), keys | values | {"begun_at": at})
    else:
        connection.execute(
            update(vault_sessions).where(vault_sessions.c.id == session.id).values(values)
        )


def _renew(connection: Connection, identity: str, until: datetime) -> bool:
    """Whether the session is still open."""
    done = connection.execute(
        update(vault_sessions)
        .where(vault_sessions.c.id == identity, vault_sessions.c.state == State.OPEN.value)
        .values(lease_until=until)
    )
    return done.rowcount == 1
