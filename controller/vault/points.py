"""The restore points of a machine, as the database lists them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from controller.db.database import Database
from controller.db.schema import points
from controller.fleet.scope import require_machine
from protocol.errors import InvalidError, NotFoundError
from protocol.identity import Identity, MachineIdentity, OperatorIdentity
from protocol.ids import MachineId, PointId, check_id
from protocol.vault.point import decode_envelope, point_hash

DEFAULT_LIMIT = 1000
MAX_ANSWER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A committed restore point; `record` is the envelope that the machine signed."""

    id: PointId
    machine: MachineId
    received_at: datetime
    record: bytes

    @property
    def hash(self) -> bytes:
        """What the machine's next restore point names as its previous one."""
        return point_hash(decode_envelope(self.record).body)


async def list_points(
    db: Database, caller: Identity, machine: str, limit: int, older_than: str = ""
) -> list[StoredPoint]:
    """A machine's restore points, newest first; `limit` 0 means 1,000.

    A machine sees its own, and names none or itself; an operator names one in scope.
    Ends earlier when the records fill 16 MiB; ask on with `older_than`, the last of them.
    Raises `NotFoundError` otherwise.
    """
    match caller:
        case MachineIdentity(machine=own):
            if machine not in ("", own):
                raise NotFoundError("a machine sees its own restore points only")
            wanted = str(own)
        case OperatorIdentity():
            wanted = check_id("mc", machine)
            await db.read(lambda connection: require_machine(connection, caller, wanted))
        case _:
            raise InvalidError("restore points are listed for machines and operators")
    count = min(limit or DEFAULT_LIMIT, DEFAULT_LIMIT)
    return await db.read(lambda connection: of_machine(connection, wanted, count, older_than))


def of_machine(
    connection: Connection, machine: str, limit: int, older_than: str = ""
) -> list[StoredPoint]:
    """The newest restore points of a machine, at most `limit` and about 16 MiB of them.

    Only those received before `older_than`, where a point is named. `NotFoundError` when
    that is none of the machine's.
    """
    found: list[StoredPoint] = []
    room = MAX_ANSWER_BYTES
    wanted = select(points.c.id, points.c.machine_id, points.c.received_at, points.c.record)
    wanted = wanted.where(points.c.machine_id == machine)
    if older_than:
        wanted = wanted.where(_before(connection, machine, older_than))
    rows = connection.execute(
        wanted.order_by(points.c.received_at.desc(), points.c.id.desc()).limit(limit)
    )
    for row in rows:
        room -= len(row.record)
        if found and room < 0:
            rows.close()
            break
        found.append(StoredPoint(*row))
    return found


def _before(connection: Connection, machine: str, point: str) -> ColumnElement[bool]:
    received = connection.scalar(
        select(points.c.received_at).where(points.c.id == point, points.c.machine_id == machine)
    )
    if received is None:
        raise NotFoundError(f"{point[:80]} is no restore point of this machine any more")
    return or_(
        points.c.received_at < received, and_(points.c.received_at == received, points.c.id < point)
    )


def newest(connection: Connection, machine: str) -> StoredPoint | None:
    """The restore point that was received last; None when there is none."""
    return next(iter(of_machine(connection, machine, 1)), None)
