"""The records of restore points in the store, against what the database has of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from controller.audit import log as audit_log
from controller.db.database import Database
from controller.store.store import ObjectMissingError, ObjectStore, StoreFailedError
from controller.vault.check import record_of
from controller.vault.keys import PointKey, point_key
from protocol.errors import SteadError
from protocol.vault.point import decode_envelope, verify_point


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a record. `is_unreadable`: nobody can tell whether anything is."""

    reason: str
    is_unreadable: bool = False
    is_missing: bool = False


def record_problem(store: ObjectStore, db: Database, named: PointKey) -> Problem | None:
    """What is wrong with a restore point's record; None when nothing is. Blocks."""
    key = point_key(*named)
    known = db.read_now(lambda c: record_of(c, named))
    try:
        store.drop_cached(key)
        record = store.get(key)
        if record != known:
            store.drop_cached(key)
            again = store.get(key)
            if again != record:
                return Problem("two reads gave different bytes; check the disk", True)
    except ObjectMissingError:
        return None if known is None else Problem("the record is missing", is_missing=True)
    except StoreFailedError as error:
        return Problem(str(error), is_unreadable=True)
    if record == known or known is None:
        return None
    problem = not_its_own(record, named)
    return Problem(problem or "the database has another record than the store")


def mend_record(
    store: ObjectStore, db: Database, named: PointKey, found: Problem, now: datetime
) -> str | None:
    """Put a damaged record aside and the database's in its place; the reason where it cannot be.

    Where both are sound and differ nothing is done: nobody here can say which one counts.
    """
    key = point_key(*named)
    known = db.read_now(lambda c: record_of(c, named))
    if known is None or not_its_own(known, named) is not None:
        return f"{found.reason}; the database has no sound copy of it"
    if not found.is_missing:
        if not_its_own(store.get(key), named) is None:
            return found.reason
        store.quarantine(key, found.reason)
    store.put(key, [known])

    def note(connection: Connection) -> None:
        body = {"machine": named.machine, "point": named.point, "reason": found.reason}
        audit_log.append(connection, named.tenant, "controller", "record_restored", body, now)

    db.write_now(note)
    return None


def not_its_own(record: bytes, named: PointKey) -> str | None:
    """Why these bytes are not the record of this restore point; None when they are."""
    try:
        point = verify_point(decode_envelope(record))
    except SteadError as error:
        return str(error)
    if (point.tenant, point.machine, point.id) != named:
        return f"it is the record of {point.id} of {point.machine}"
    return None
