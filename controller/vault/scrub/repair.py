"""Put damaged objects aside, keep what is whole of them, and let go of what is not.

What was lost is not held any more from then on, so the next backup of whoever still
has it sends it again, and every restore point that names it is whole again. Nothing is
deleted: damaged objects go to the store's quarantine. It can be cut short and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from controller.audit import log as audit_log
from controller.db.database import Database
from controller.db.schema import chunks, forgotten_points, packs, points, tenants
from controller.store.store import ObjectMissingError, ObjectStore, StoreFailedError
from controller.vault import index
from controller.vault.check import doomed_now, record_of, rows_of
from controller.vault.keys import PackKey, PointKey, pack_key, point_key
from controller.vault.scrub.records import not_its_own
from controller.vault.survey import intact, objects
from controller.vault.upload.losses import note_loss
from protocol.vault.chunk import ChunkId, Kind, chunk_id
from protocol.vault.pack import (
    PackBuilder,
    PackDamagedError,
    PackId,
    Placed,
    pack_id,
    read_index,
)


@dataclass(slots=True)
class Repaired:
    """What was put aside, what of it was kept, and what is lost until it is sent again."""

    packs_put_aside: int = 0
    kept_chunks: int = 0
    lost_chunks: int = 0
    points_put_aside: int = 0
    points_restored: int = 0
    problems: list[str] = field(default_factory=list)


Made = tuple[PackId, int, list[Placed]]
"""A new pack: its name, its length, and where its chunks lie."""


class _Salvaged(NamedTuple):
    """The whole chunks of a pack; `reason` is None when nothing is wrong with it."""

    chunks: list[tuple[ChunkId, bytes]]
    reason: str | None


def repair(
    store: ObjectStore,
    db: Database,
    *,
    now: datetime,
    told: Callable[[int], None] = lambda _bytes: None,
) -> Repaired:
    """Repair packs and restore points of known tenants. Blocks; run it alone.

    `told` hears of the bytes that were read so far.

    The rows of packs that are not damaged are `rebuild`'s affair.
    """
    done = Repaired()
    known = db.read_now(lambda c: set(c.scalars(select(tenants.c.id))))
    doomed = db.read_now(doomed_now)
    found = [(n, size) for n, size in objects(store) if n.tenant in known and n not in doomed]
    read = 0
    for named, size in found:
        if isinstance(named, PackKey):
            _mend_pack(store, db, named, now, done)
            read += size
            told(read)
    for key in {*_known_points(db), *(one for one, _ in found if isinstance(one, PointKey))}:
        _mend_point(store, db, key, done)
    if done.packs_put_aside or done.points_put_aside or done.points_restored:
        body = {
            "packs": done.packs_put_aside,
            "kept_chunks": done.kept_chunks,
            "lost_chunks": done.lost_chunks,
            "points": done.points_restored,
        }
        db.write_now(
            lambda c: audit_log.append(
                c, audit_log.INSTALLATION, "controller", "vault_repaired", body, now
            )
        )
    return done


def _mend_pack(
    store: ObjectStore, db: Database, named: PackKey, now: datetime, done: Repaired
) -> None:
    key = pack_key(*named)
    found = _salvage(store, db, named)
    if found.reason is None:
        return
    made: list[Made] = []
    for kind in Kind:
        whole = [chunk for chunk in found.chunks if chunk[1][5] == kind]
        if not whole:
            continue
        kept = keep_whole(store, named, whole)
        if kept is None:
            done.problems.append(f"{key}: {found.reason}; mend the other packs, then run again")
            return
        made.append(kept)
    lost = db.write_now(partial(replace_rows, named=named, made=made, now=now))
    if store.exists(key) and all(name != named.pack for name, _, _ in made):
        store.quarantine(key, found.reason)
    done.packs_put_aside += 1
    done.kept_chunks += len(found.chunks)
    done.lost_chunks += len(lost)


def _salvage(store: ObjectStore, db: Database, named: PackKey) -> _Salvaged:
    key = pack_key(*named)
    try:
        content = store.get(key)
    except StoreFailedError as error:
        return _Salvaged(_piece_by_piece(store, db, named), f"cannot be read: {error}")
    reason: str | None = None
    try:
        placed = read_index(content)
    except PackDamagedError as damage:
        placed, reason = intact(content), str(damage)
    whole = whole_chunks(placed, [content[one.offset : one.offset + one.length] for one in placed])
    if len(whole) < len(placed):
        reason = f"{len(placed) - len(whole)} chunks hold other bytes than their ids say"
    elif reason is None and pack_id(content) != named.pack:
        reason = "holds other bytes than its name says"
    return _Salvaged(whole, reason)


def _piece_by_piece(
    store: ObjectStore, db: Database, named: PackKey
) -> list[tuple[ChunkId, bytes]]:
    """The chunks around a spot that the disk cannot read any more."""
    number = db.read_now(partial(_number, named=named))
    if number is None:
        return []
    placed = sorted(
        db.read_now(partial(rows_of, number=number)), key=lambda one: (one.offset, one.id)
    )
    read: list[bytes] = []
    for one in placed:
        try:
            read.append(store.get(pack_key(*named), one.offset, one.length))
        except StoreFailedError:
            read.append(b"")
    return whole_chunks(placed, read)


def whole_chunks(placed: Sequence[Placed], read: Sequence[bytes]) -> list[tuple[ChunkId, bytes]]:
    """The chunks of which what was read hashes to their ids."""
    return [
        (one.id, stored)
        for one, stored in zip(placed, read, strict=True)
        if stored and chunk_id(stored) == one.id
    ]


def keep_whole(
    store: ObjectStore,
    named: PackKey,
    whole: Sequence[tuple[ChunkId, bytes]],
    claim: Callable[[PackId], None] = lambda _: None,
) -> Made | None:
    """A new pack of these chunks of one kind, durable; None when a damaged one has its name.

    When only its index was damaged the new pack would have the name of the old, which is
    in its place until the new one is safe: the order of the chunks makes another name.
    `claim` is told of a name before anything is put under it.
    """
    for ordered in (whole, whole[::-1]):
        builder = PackBuilder(Kind(ordered[0][1][5]))
        placed = [
            Placed(identity, builder.kind, builder.add(identity, stored), len(stored))
            for identity, stored in ordered
        ]
        length = builder.finished_bytes
        name, pieces = builder.finish()
        key = pack_key(named.tenant, name)
        claim(name)
        if store.put(key, pieces) or _is_sound(store, key, name):
            return name, length, placed
    if name != named.pack:
        return None
    # One chunk alone: there is no other order, so the old one goes first.
    store.quarantine(key, "its index is damaged")
    store.put(key, pieces)
    return name, length, placed


def _is_sound(store: ObjectStore, key: str, name: PackId) -> bool:
    try:
        return pack_id(store.get(key)) == name
    except (ObjectMissingError, StoreFailedError):
        return False


def _number(connection: Connection, named: PackKey) -> int | None:
    number = connection.scalar(
        select(packs.c.number).where(packs.c.tenant_id == named.tenant, packs.c.id == named.pack)
    )
    return None if number is None else int(number)


def replace_rows(
    connection: Connection,
    named: PackKey,
    made: Sequence[Made],
    now: datetime,
) -> set[ChunkId]:
    """Let the rows of a damaged pack become those of the new ones; the chunks that are lost."""
    number = _number(connection, named)
    before: set[ChunkId] = set()
    if number is not None:
        before = {one.id for one in rows_of(connection, number)}
        connection.execute(delete(chunks).where(chunks.c.pack_number == number))
        connection.execute(delete(packs).where(packs.c.number == number))
    for name, length, placed in made:
        kind = placed[0].kind
        index.record_pack(
            connection, named.tenant, name, kind, length, placed, now, revive_dead=False
        )
    lost = before - index.present(connection, named.tenant, before)
    # What comes back is sent by somebody who relies on it.
    index.lift(connection, named.tenant, lost)
    if lost:
        note_loss(connection, named.tenant, now)
    return lost


def _known_points(db: Database) -> set[PointKey]:
    return db.read_now(
        lambda connection: {
            PointKey(row[0], row[1], row[2])
            for table in (points, forgotten_points)
            for row in connection.execute(select(table.c.tenant_id, table.c.machine_id, table.c.id))
        }
    )


def _mend_point(store: ObjectStore, db: Database, named: PointKey, done: Repaired) -> None:
    key = point_key(*named)
    problem: str | None = None
    there = True
    try:
        problem = not_its_own(store.get(key), named)
    except ObjectMissingError:
        there, problem = False, "the record is missing"
    except StoreFailedError as error:
        problem = str(error)
    if problem is None:
        return
    record = db.read_now(lambda c: record_of(c, named))
    if there:
        store.quarantine(key, problem)
        done.points_put_aside += 1
    if record is not None and not_its_own(record, named) is None:
        store.put(key, [record])
        done.points_restored += 1
    else:
        done.problems.append(f"{key}: {problem}; no sound copy of it is known")
