"""Read everything that is stored and compare it with its hashes and with the database.

Nothing is changed. For a controller that is stopped: what is written meanwhile may be
reported as if it were missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, select

from controller.db.database import Database
from controller.db.schema import chunks, doomed_packs, forgotten_points, packs, points
from controller.store.store import ObjectStore
from controller.vault import index
from controller.vault.keys import PackKey, PointKey, pack_key, point_key
from controller.vault.survey import intact, objects
from protocol.errors import SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Kind, chunk_id, inspect
from protocol.vault.pack import PackDamagedError, Placed, pack_id, read_index
from protocol.vault.point import decode_envelope, verify_point


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was stored. `chunk` is set where it is one chunk's."""

    object_key: str
    chunk: ChunkId | None
    reason: str


@dataclass(slots=True)
class Report:
    """What a check has seen; no faults means that everything can be restored.

    `unindexed` names objects that the database does not know: what a crash left
    behind before anything was acknowledged, and all of them where the index was lost.
    """

    packs: int = 0
    chunks: int = 0
    bytes: int = 0
    points: int = 0
    unindexed: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def check(
    store: ObjectStore, db: Database, told: Callable[[int], None] = lambda _bytes: None
) -> Report:
    """Check all packs, restore points and rows. Blocks for as long as reading takes.

    `told` hears of the bytes that were read so far.
    """
    report = Report()
    known = db.read_now(_known_packs)
    known_points = db.read_now(_known_points)
    doomed = db.read_now(doomed_now)
    for named, size in objects(store):
        if named in doomed:
            continue
        if isinstance(named, PackKey):
            report.packs += 1
            report.bytes += size
            number = known.pop(named, None)
            report.faults += _pack(store, db, named, number, report)
            told(report.bytes)
        else:
            report.points += 1
            report.faults += _point(store, db, named, known_points, report)
    for named in known:
        key = pack_key(*named)
        report.faults.append(Fault(key, None, "the pack is missing"))
    # A forgotten one may be without: the record goes first, and the next collection follows.
    listed = set(db.read_now(lambda c: c.scalars(select(points.c.id)).all()))
    for known_point, key in known_points.items():
        if known_point.point in listed:
            report.faults.append(Fault(key, None, "the restore point's record is missing"))
    return report


def _known_packs(connection: Connection) -> dict[PackKey, int]:
    rows = connection.execute(select(packs.c.tenant_id, packs.c.id, packs.c.number))
    return {PackKey(row[0], row[1]): row[2] for row in rows}


def _known_points(connection: Connection) -> dict[PointKey, str]:
    return {
        PointKey(row[0], row[1], row[2]): row[3]
        for table in (points, forgotten_points)
        for row in connection.execute(
            select(table.c.tenant_id, table.c.machine_id, table.c.id, table.c.object_key)
        )
    }


def doomed_now(connection: Connection) -> set[PackKey]:
    """Packs whose objects are only waiting to be deleted."""
    rows = connection.execute(select(doomed_packs.c.tenant_id, doomed_packs.c.id))
    return {PackKey(row[0], row[1]) for row in rows}


def _pack(
    store: ObjectStore, db: Database, named: PackKey, number: int | None, report: Report
) -> list[Fault]:
    key = pack_key(named.tenant, named.pack)
    try:
        content = store.get(key)
    except SteadError as error:
        return [Fault(key, None, f"cannot be read: {error}")]
    faults: list[Fault] = []
    try:
        placed = read_index(content)
    except PackDamagedError as damage:
        faults.append(Fault(key, None, str(damage)))
        placed = intact(content)
    report.chunks += len(placed)
    bad = _damaged(content, placed)
    faults += [Fault(key, chunk, "holds other bytes than its id says") for chunk in bad]
    if not faults and pack_id(content) != named.pack:
        faults.append(Fault(key, None, "bytes between its chunks are not those of its name"))
    if number is None:
        report.unindexed.append(key)
        return faults
    faults += row_faults(db, named, number, placed)
    if not bad:
        faults += child_faults(db, named, content, placed)
    return faults


def _damaged(content: bytes, placed: list[Placed]) -> list[ChunkId]:
    view = memoryview(content)
    return [
        chunk.id
        for chunk in placed
        if chunk_id(view[chunk.offset : chunk.offset + chunk.length]) != chunk.id
    ]


def row_faults(db: Database, named: PackKey, number: int, placed: list[Placed]) -> Iterator[Fault]:
    """What the database says of a pack and the pack does not, and the other way round."""
    key = pack_key(named.tenant, named.pack)
    stored = set(placed)
    indexed = db.read_now(lambda connection: rows_of(connection, number))
    for chunk in indexed - stored:
        yield Fault(key, chunk.id, "the database has it in another place than the pack")
    missing = {chunk.id for chunk in stored - indexed}
    present = db.read_now(lambda connection: index.present(connection, named.tenant, missing))
    for lost in missing - present:
        yield Fault(key, lost, "the database does not know it; run `stead vault rebuild`")


def rows_of(connection: Connection, number: int) -> set[Placed]:
    """The chunks that the database has in the pack of this number."""
    rows = connection.execute(
        select(chunks.c.id, chunks.c.kind, chunks.c.offset, chunks.c.length).where(
            chunks.c.pack_number == number
        )
    )
    return {Placed(ChunkId(row[0]), Kind(row[1]), row[2], row[3]) for row in rows}


def child_faults(
    db: Database, named: PackKey, content: bytes, placed: list[Placed]
) -> Iterator[Fault]:
    """Trees whose children are not held; there are none unless a pack was lost.

    A dead tree is not asked: what it names may be gone already.
    """
    key = pack_key(named.tenant, named.pack)
    view = memoryview(content)
    trees = {chunk.id for chunk in placed if chunk.kind is Kind.TREE}
    alive = db.read_now(partial(index.held, tenant=named.tenant, ids=trees))
    for chunk in placed:
        if chunk.id not in alive:
            continue
        try:
            header = inspect(view[chunk.offset : chunk.offset + chunk.length])
        except ChunkDamagedError as damage:
            yield Fault(key, chunk.id, damage.reason)
            continue
        wanted = set(header.children)
        held = db.read_now(partial(index.held, tenant=named.tenant, ids=wanted))
        for child in wanted - held:
            yield Fault(key, chunk.id, f"its child {child.hex()} is in no pack")


def _point(
    store: ObjectStore,
    db: Database,
    named: PointKey,
    known: dict[PointKey, str],
    report: Report,
) -> Iterator[Fault]:
    key = point_key(*named)
    try:
        record = store.get(key)
        point = verify_point(decode_envelope(record))
    except SteadError as error:
        known.pop(named, None)
        yield Fault(key, None, str(error))
        return
    if (point.tenant, point.machine, point.id) != named:
        yield Fault(key, None, f"it is the record of {point.id} of {point.machine}")
    if known.pop(named, None) is None:
        report.unindexed.append(key)
        return
    root = ChunkId(point.root)

    def compare(connection: Connection) -> tuple[bytes | None, bool]:
        row = record_of(connection, named)
        return row, root in index.held(connection, named.tenant, [root])

    row, held = db.read_now(compare)
    if row != record:
        yield Fault(key, None, "the database has another record than the store")
    if not held:
        yield Fault(key, root, "the root of the restore point is in no pack")


def record_of(connection: Connection, named: PointKey) -> bytes | None:
    """The record of a restore point as the database has it, a forgotten one included."""
    for table in (points, forgotten_points):
        found = connection.scalar(select(table.c.record).where(table.c.id == named.point))
        if found is not None:
            return bytes(found)
    return None


def describe(fault: Fault) -> str:
    """A fault in one line.

    >>> describe(Fault("tn_1/packs/ab/abcd", None, "the pack is missing"))
    'tn_1/packs/ab/abcd: the pack is missing'
    """
    where = fault.object_key if fault.chunk is None else f"{fault.object_key} {fault.chunk.hex()}"
    return f"{where}: {fault.reason}"
