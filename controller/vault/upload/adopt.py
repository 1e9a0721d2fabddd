"""Take in a restore point whose commit was cut short once its record was durable.

Nobody was told that it exists, and yet all of it does: it passed every check of a commit
before its record was written. Left alone it would keep its id taken, and a collection
would delete nothing for fear of what else the database does not know.

What a database does not know because it is an old copy is another matter, and is left to
`stead vault rebuild`: only a restore point whose session is in the database, whose tree is
held by it and that follows the machine's newest is taken in.
"""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy import Connection, select

from controller.db.database import Database
from controller.db.schema import points
from controller.store.store import ObjectMissingError, ObjectStore
from controller.vault.keys import PointKey, point_key
from controller.vault.upload.commit import check_place, receive
from controller.vault.upload.sessions import Session, State, latest, of_point, point_of
from protocol.errors import SteadError
from protocol.identity import MachineIdentity
from protocol.vault.point import UNREADABLE, RestorePoint, decode_envelope, verify_point

log = structlog.get_logger()


def adopt_latest(store: ObjectStore, db: Database, machine: MachineIdentity, at: datetime) -> bool:
    """Take in what the machine's latest session left behind. Blocks.

    That one is enough: a session begins when what the one before it left is taken in.
    """
    session = db.read_now(lambda c: latest(c, machine.machine))
    if session is None or session.state is State.COMMITTED:
        return False
    named = PointKey(machine.tenant, machine.machine, point_of(session.id))
    return adopt(store, db, named, at)


def adopt(store: ObjectStore, db: Database, named: PointKey, at: datetime) -> bool:
    """Take in the record under this key as a restore point, if it is one and may be. Blocks."""
    key = point_key(*named)
    try:
        record = store.get(key)
    except ObjectMissingError:
        return False
    try:
        point = verify_point(decode_envelope(record))
    except (SteadError, *UNREADABLE):
        return False  # damaged: told by whoever checks the vault
    if (point.tenant, point.machine, point.id) != named:
        return False
    done = db.write_now(lambda c: _adopt(c, point, record, at, key))
    if done:
        log.info("restore_point_adopted", point=point.id, machine=point.machine)
    return done


def _adopt(
    connection: Connection, point: RestorePoint, record: bytes, at: datetime, key: str
) -> bool:
    if connection.scalar(select(points.c.id).where(points.c.id == point.id)) is not None:
        return False
    session = of_point(connection, point.id)
    if session is None or not _is_uncommitted(session, point):
        return False
    try:
        check_place(connection, point)
    except SteadError:
        return False
    receive(connection, session, point, record, at, key)
    return True


def _is_uncommitted(session: Session, point: RestorePoint) -> bool:
    owner = (session.tenant, session.machine)
    return owner == (point.tenant, point.machine) and session.state is not State.COMMITTED
