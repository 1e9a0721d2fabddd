"""Make the index anew from the objects alone, and say where it was wrong.

At no moment does the database know less than before that is true: rows of packs that
are gone are dropped, each pack's rows are corrected in one transaction, and what is
right stays. So it can be cut short and run again.

What was doomed is taken in as dead, and what restore points need lives again: a database
that was put back may be wrong about both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from cryptography import x509
from sqlalchemy import Connection, delete, select, update

from controller.audit import log as audit_log
from controller.db.database import Database
from controller.db.schema import chunks, forgotten_points, machines, packs, points, tenants
from controller.store.store import ObjectStore
from controller.vault import index
from controller.vault.check import doomed_now, rows_of
from controller.vault.collect.heal import heal
from controller.vault.keys import PackKey, PointKey, pack_key, point_key
from controller.vault.survey import contents, objects
from controller.vault.upload.commit import enter
from controller.vault.upload.losses import note_loss
from protocol.errors import InvalidError, SteadError
from protocol.identity import MachineIdentity, identity_of
from protocol.vault.chunk import Kind
from protocol.vault.pack import Placed
from protocol.vault.point import UNREADABLE, RestorePoint, decode_envelope, point_hash, verify_point

_TICK = timedelta(microseconds=1)


@dataclass(slots=True)
class Rebuilt:
    """What was found, what had to be changed for it, and what could not be used and why."""

    packs: int = 0
    chunks: int = 0
    points: int = 0
    added_chunks: int = 0
    dropped_chunks: int = 0
    added_points: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    point: RestorePoint
    record: bytes
    hash: bytes


def rebuild(
    store: ObjectStore,
    db: Database,
    *,
    now: datetime,
    told: Callable[[int], None] = lambda _packs: None,
) -> Rebuilt:
    """Bring packs, chunks and points in line with the store. Blocks; run it alone.

    `told` hears how many packs were looked at so far.

    The tenants and machines themselves are not in the store: what belongs to unknown
    ones is left alone and named.
    """
    done = Rebuilt()
    known_tenants = db.read_now(lambda c: set(c.scalars(select(tenants.c.id))))
    found_packs: dict[PackKey, int] = {}
    found_points: list[PointKey] = []
    doomed = db.read_now(doomed_now)
    for named, size in objects(store):
        if named.tenant not in known_tenants:
            _complain(done, f"{named.tenant} is no known tenant; restore the database first")
        elif isinstance(named, PackKey):
            found_packs[named] = size
        else:
            found_points.append(named)
    # Whatever is missing afterwards is to be sent again by whoever has it.
    for tenant in known_tenants:
        db.write_now(partial(note_loss, tenant=tenant, at=now))
    done.dropped_chunks += db.write_now(lambda c: _drop_lost(c, set(found_packs)))
    # What one pack's wrong rows hid may lie in another that was read before.
    while _rebuild_packs(store, db, found_packs, doomed, now, done, told):
        pass
    _rebuild_points(store, db, found_points, done)
    for tenant in sorted(known_tenants):
        try:
            heal(store, db, tenant)
        except SteadError as error:
            _complain(done, f"{tenant}: {error}")
    summary = {
        "packs": done.packs,
        "added_chunks": done.added_chunks,
        "dropped_chunks": done.dropped_chunks,
        "added_points": done.added_points,
        "problems": len(done.problems),
    }
    db.write_now(
        lambda c: audit_log.append(
            c, audit_log.INSTALLATION, "controller", "vault_rebuilt", summary, now
        )
    )
    return done


def _drop_lost(connection: Connection, found: set[PackKey]) -> int:
    dropped = 0
    rows = connection.execute(select(packs.c.tenant_id, packs.c.id, packs.c.number)).all()
    for tenant, pack, number in rows:
        if PackKey(tenant, pack) not in found:
            gone = connection.execute(delete(chunks).where(chunks.c.pack_number == number))
            connection.execute(delete(packs).where(packs.c.number == number))
            dropped += gone.rowcount
    return dropped


def _rebuild_packs(
    store: ObjectStore,
    db: Database,
    found: dict[PackKey, int],
    doomed: set[PackKey],
    now: datetime,
    done: Rebuilt,
    told: Callable[[int], None],
) -> bool:
    """Correct the rows of every pack; whether any were dropped."""
    before = done.dropped_chunks
    done.packs = done.chunks = 0
    for looked, (pack, size) in enumerate(found.items()):
        told(looked)
        try:
            placed, damage = contents(store, pack, size)
        except SteadError as error:
            _complain(done, f"{pack_key(*pack)}: {error}")
            continue
        if damage is not None:
            _complain(done, f"{pack_key(*pack)}: {damage}")
        if placed:
            done.packs += 1
            done.chunks += len(placed)
            act = partial(
                _correct, pack=pack, size=size, placed=placed, now=now, is_dead=pack in doomed
            )
            added, dropped = db.write_now(act)
            done.added_chunks += added
            done.dropped_chunks += dropped
    return done.dropped_chunks > before


def _complain(done: Rebuilt, problem: str) -> None:
    if problem not in done.problems:
        done.problems.append(problem)


def _correct(
    connection: Connection,
    pack: PackKey,
    size: int,
    placed: list[Placed],
    now: datetime,
    *,
    is_dead: bool,
) -> tuple[int, int]:
    """Make a pack's rows those of its index; how many were added and dropped."""
    number = connection.scalar(
        select(packs.c.number).where(packs.c.tenant_id == pack.tenant, packs.c.id == pack.pack)
    )
    wrong: set[Placed] = set()
    if number is not None:
        wrong = rows_of(connection, number) - set(placed)
        for chunk in wrong:
            connection.execute(
                delete(chunks).where(chunks.c.tenant_id == pack.tenant, chunks.c.id == chunk.id)
            )
    ids = {chunk.id for chunk in placed}
    new = ids - index.present(connection, pack.tenant, ids)
    # A pack holds chunks of one kind only.
    kind = Kind(placed[0].kind)
    index.record_pack(
        connection, pack.tenant, pack.pack, kind, size, placed, now, revive_dead=False
    )
    right = {"kind": kind.name.lower(), "length": size}
    is_it = (packs.c.tenant_id == pack.tenant, packs.c.id == pack.pack)
    connection.execute(update(packs).where(*is_it).values(**right))
    if is_dead:
        index.lay_in_force(connection, pack.tenant, new)
    return len(new), len(wrong)


def _rebuild_points(store: ObjectStore, db: Database, named: list[PointKey], done: Rebuilt) -> None:
    known_machines = db.read_now(lambda c: set(c.scalars(select(machines.c.id))))
    by_machine: dict[str, list[_Found]] = defaultdict(list)
    for key in named:
        try:
            found = _read_point(store, key)
        except (SteadError, *UNREADABLE) as error:
            done.problems.append(f"{point_key(*key)}: {error}")
            continue
        if key.machine in known_machines:
            by_machine[key.machine].append(found)
        else:
            done.problems.append(f"{point_key(*key)}: no known machine made it")
    for group in by_machine.values():
        done.points += len(group)
        act = partial(_enter_missing, ordered=_in_chain_order(group), problems=done.problems)
        done.added_points += db.write_now(act)


def _read_point(store: ObjectStore, key: PointKey) -> _Found:
    record = store.get(point_key(*key))
    envelope = decode_envelope(record)
    point = verify_point(envelope)
    signer = identity_of(x509.load_der_x509_certificate(envelope.chain[0]))
    if signer != MachineIdentity(key.tenant, key.machine) or (
        (point.tenant, point.machine, point.id) != key
    ):
        raise InvalidError("the record is another machine's or restore point's")
    return _Found(point, record, point_hash(envelope.body))


def _in_chain_order(group: list[_Found]) -> list[_Found]:
    """Each restore point after the one that it names as its previous one."""
    following: dict[bytes | None, list[_Found]] = defaultdict(list)
    hashes = {found.hash for found in group}
    for found in sorted(group, key=lambda one: (one.point.started_at, one.point.id)):
        previous = found.point.previous
        following[previous if previous in hashes else None].append(found)
    ordered: list[_Found] = []
    waiting = list(reversed(following[None]))
    while waiting:
        found = waiting.pop()
        ordered.append(found)
        waiting += reversed(following[found.hash])
    return ordered


def _enter_missing(connection: Connection, ordered: list[_Found], problems: list[str]) -> int:
    """Insert rows that are missing. When they were received is lost: when they began counts."""
    added = 0
    last: datetime | None = None
    for found in ordered:
        point = found.point
        table = points
        if _is_forgotten(connection, point.id):
            table = forgotten_points
        row = connection.execute(
            select(table.c.received_at, table.c.record).where(table.c.id == point.id)
        ).one_or_none()
        if row is None:
            at = point.started_at if last is None else max(point.started_at, last + _TICK)
            key = point_key(point.tenant, point.machine, point.id)
            enter(connection, point, found.record, at, key)
            added += 1
            last = at
            continue
        if row.record != found.record:
            problems.append(f"{point.id}: the database had another record than the store")
            connection.execute(
                update(table).where(table.c.id == point.id).values(record=found.record)
            )
        last = row.received_at
    return added


def _is_forgotten(connection: Connection, point: str) -> bool:
    found = select(forgotten_points.c.id).where(forgotten_points.c.id == point)
    return connection.scalar(found) is not None
