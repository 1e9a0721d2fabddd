"""Put a damaged pack aside while the controller runs: nothing is deleted, what is whole stays.

The rows of what was lost go, so `has` says no and the next backup of whoever still has it
sends it again; then every restore point that needs it is whole again. Until then
`lost_chunks` names what is missing, and for which pack.

The order is that of a repair: new packs durable, then the rows, then the old object to
the quarantine. `finish` does the last step for a controller that died before it. The
pack's name is claimed by the caller, so that nobody stores it anew meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import Event

import msgspec
import structlog
from sqlalchemy import Connection, delete, insert, select, update

from controller.audit import log as audit_log
from controller.db.database import Database
from controller.db.schema import chunks, damages, lost_chunks, packs, points
from controller.db.upsert import upsert
from controller.store.store import ObjectStore
from controller.vault import index
from controller.vault.claims import Claims
from controller.vault.hits import decode_hit, encode_hit, hit_points
from controller.vault.keys import PackKey, pack_key, parse_key
from controller.vault.scrub.examine import Examined, Verdict
from controller.vault.scrub.repair import Made, keep_whole, replace_rows, whole_chunks
from controller.vault.survey import intact
from controller.vault.upload.losses import note_loss
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId, Kind
from protocol.vault.pack import PackDamagedError, PackId, read_index

log = structlog.get_logger()

SETTLING = timedelta(days=2)
_BATCH = 500
NAMED_CHUNKS = 8
NAMED_POINTS = 100
"""So many restore points an audit entry names; the row of the damage names all."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of a damaged pack."""

    damage: int
    kept_chunks: int
    lost: frozenset[ChunkId]


def mend(
    store: ObjectStore,
    db: Database,
    claims: Claims,
    named: PackKey,
    found: Examined,
    now: datetime,
) -> Mended:
    """Keep what is whole of a damaged or missing pack and let go of the rest. Blocks.

    Raises PACK_DAMAGED when what is whole could not be kept: then nothing was changed.
    """
    key = pack_key(*named)
    whole = _whole(found.content) if found.verdict is Verdict.DAMAGED else []
    with ExitStack() as held:

        def claim(name: PackId) -> None:
            if name != named.pack:
                held.enter_context(claims.claimed(named.tenant, name))

        made: list[Made] = []
        for kind in Kind:
            kept = [chunk for chunk in whole if chunk[1][5] == kind]
            if not kept:
                continue
            pack = keep_whole(store, named, kept, claim)
            if pack is None:
                raise SteadError(
                    f"{key}: what is whole of it cannot be kept, since a damaged pack has the "
                    "name it would get; it is mended after that one",
                    code=Code.PACK_DAMAGED,
                )
            made.append(pack)
        act = partial(_replace, named=named, made=made, found=found, kept=len(whole), now=now)
        mended = db.write_now(act)
    if any(name == named.pack for name, _, _ in made):
        db.write_now(partial(_note_aside, damage=mended.damage))
    else:
        _put_aside(store, db, key, mended.damage, found.reason)
    log.error(
        "pack_put_aside", pack=key, kept=len(whole), lost=len(mended.lost), reason=found.reason
    )
    return mended


def name_hits(
    store: ObjectStore,
    db: Database,
    tenant: str,
    damage: int,
    now: datetime,
    stopping: Event | None = None,
) -> Mapping[str, list[str]]:
    """Find the restore points that a damage hit, and note them. Blocks while it reads trees.

    `StoppedError` once `stopping` is set; then `finish` does it.
    """
    lost = db.read_now(
        lambda c: c.scalars(
            select(lost_chunks.c.id).where(
                lost_chunks.c.tenant_id == tenant, lost_chunks.c.damage == damage
            )
        ).all()
    )
    hit = hit_points(store, db, tenant, map(ChunkId, lost), stopping) if lost else {}
    db.write_now(partial(_note_hits, tenant=tenant, damage=damage, hit=hit, now=now))
    return hit


def note_incomplete(
    connection: Connection,
    tenant: str,
    point: str,
    missing: Sequence[tuple[ChunkId, ChunkId]],
    now: datetime,
) -> int | None:
    """Note that a restore point names chunks that are not held, each with who names it.

    The number of the damage; None when all of it was known. The next backups read
    everything and send what is missing.
    """
    known = set(
        connection.scalars(
            select(lost_chunks.c.id).where(
                lost_chunks.c.tenant_id == tenant,
                lost_chunks.c.id.in_([one for one, _ in missing][:_BATCH]),
            )
        )
    )
    fresh = {one: tree for one, tree in missing[:_BATCH] if one not in known}
    if not fresh:
        return None
    note_loss(connection, tenant, now)
    reason = "the restore point names chunks that are in no pack"
    damage = _enter(connection, tenant, point, reason, 0, frozenset(fresh), now, is_aside=True)
    body = {
        "damage": damage,
        "point": point,
        "missing": len(fresh),
        "chunks": [one.hex() for one in list(fresh)[:NAMED_CHUNKS]],
        "named_by": [tree.hex() for tree in list(fresh.values())[:NAMED_CHUNKS]],
    }
    audit_log.append(connection, tenant, "controller", "restore_point_incomplete", body, now)
    return damage


def finish(
    store: ObjectStore,
    db: Database,
    claims: Claims,
    now: datetime,
    stopping: Event | None = None,
) -> None:
    """Do what a controller that died or was stopped left undone of its mending."""
    for row in db.read_now(_unfinished):
        named = parse_key(row.object_key)
        if not row.is_aside and isinstance(named, PackKey):
            with claims.claimed(*named):
                if not db.read_now(partial(is_entered, named=named)):
                    _put_aside(store, db, row.object_key, row.number, row.reason)
        if row.hit is None:
            name_hits(store, db, row.tenant_id, row.number, now, stopping)


def settle_losses(connection: Connection, tenant: str, now: datetime) -> int:
    """Forget losses that were sent again or that nobody needs; how many are still missing.

    A damage of which nothing is missing any more gets an audit entry that says so. One that
    no restore point needs is kept for `SETTLING`: a backup under way may rely on it.
    """
    _forget_needless(connection, tenant, now)
    rows = connection.execute(
        select(lost_chunks.c.id, lost_chunks.c.damage).where(lost_chunks.c.tenant_id == tenant)
    ).all()
    if not rows:
        return 0
    lost = {ChunkId(row.id): int(row.damage) for row in rows}
    back = index.held(connection, tenant, lost)
    for batch in index.batches(back):
        connection.execute(
            delete(lost_chunks).where(
                lost_chunks.c.tenant_id == tenant, lost_chunks.c.id.in_(batch)
            )
        )
    still = {damage for one, damage in lost.items() if one not in back}
    for damage in sorted({lost[one] for one in back} - still):
        audit_log.append(connection, tenant, "controller", "damage_healed", {"damage": damage}, now)
    return len(lost) - len(back)


def _forget_needless(connection: Connection, tenant: str, now: datetime) -> None:
    old = connection.execute(
        select(damages.c.number, damages.c.hit).where(
            damages.c.tenant_id == tenant,
            damages.c.found_at < now - SETTLING,
            damages.c.hit.is_not(None),
            damages.c.number.in_(
                select(lost_chunks.c.damage).where(lost_chunks.c.tenant_id == tenant)
            ),
        )
    ).all()
    for number, hit in old:
        named = [point for listed in decode_hit(hit).values() for point in listed]
        if not _any_left(connection, named):
            connection.execute(
                delete(lost_chunks).where(
                    lost_chunks.c.tenant_id == tenant, lost_chunks.c.damage == number
                )
            )


def _any_left(connection: Connection, named: Sequence[str]) -> bool:
    for start in range(0, len(named), _BATCH):
        batch = named[start : start + _BATCH]
        found = select(points.c.id).where(points.c.id.in_(batch)).limit(1)
        if connection.scalar(found) is not None:
            return True
    return False


def is_entered(connection: Connection, named: PackKey) -> bool:
    """Whether the database has a pack of this name."""
    return (
        connection.scalar(
            select(packs.c.number).where(
                packs.c.tenant_id == named.tenant, packs.c.id == named.pack
            )
        )
        is not None
    )


def _whole(content: bytes) -> list[tuple[ChunkId, bytes]]:
    try:
        placed = read_index(content)
    except PackDamagedError:
        placed = intact(content)
    return whole_chunks(placed, [content[one.offset : one.offset + one.length] for one in placed])


def _replace(
    connection: Connection,
    named: PackKey,
    made: Sequence[Made],
    found: Examined,
    kept: int,
    now: datetime,
) -> Mended:
    # What is dead already is no loss.
    alive = index.held(connection, named.tenant, _rows_of(connection, named))
    lost = replace_rows(connection, named, made, now) & alive
    key = pack_key(*named)
    is_gone = found.verdict is Verdict.MISSING
    number = _enter(
        connection, named.tenant, key, found.reason, kept, frozenset(lost), now, is_aside=is_gone
    )
    body = {
        "damage": number,
        "pack": named.pack,
        "reason": found.reason,
        "kept_chunks": kept,
        "lost_chunks": len(lost),
    }
    audit_log.append(connection, named.tenant, "controller", "pack_put_aside", body, now)
    return Mended(number, kept, frozenset(lost))


def _rows_of(connection: Connection, named: PackKey) -> Sequence[ChunkId]:
    return connection.scalars(
        select(chunks.c.id)
        .join(packs, packs.c.number == chunks.c.pack_number)
        .where(packs.c.tenant_id == named.tenant, packs.c.id == named.pack)
    ).all()


def _enter(
    connection: Connection,
    tenant: str,
    key: str,
    reason: str,
    kept: int,
    lost: frozenset[ChunkId],
    now: datetime,
    *,
    is_aside: bool,
) -> int:
    """Insert a damage with what is lost by it; its number."""
    done = connection.execute(
        insert(damages).values(
            tenant_id=tenant,
            object_key=key,
            found_at=now,
            reason=reason,
            kept_chunks=kept,
            lost_chunks=len(lost),
            is_aside=is_aside,
            hit=None if lost else "{}",
        )
    ).inserted_primary_key
    assert done is not None
    number = int(done[0])
    if lost:
        rows = [{"tenant_id": tenant, "id": one, "damage": number} for one in sorted(lost)]
        statement = upsert(connection, lost_chunks)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["tenant_id", "id"], set_={"damage": number}
            ),
            rows,
        )
    return number


def _put_aside(store: ObjectStore, db: Database, key: str, damage: int, reason: str) -> None:
    if store.exists(key):
        store.quarantine(key, reason)
    db.write_now(partial(_note_aside, damage=damage))


def _note_aside(connection: Connection, damage: int) -> None:
    connection.execute(update(damages).where(damages.c.number == damage).values(is_aside=True))


def _note_hits(
    connection: Connection,
    tenant: str,
    damage: int,
    hit: Mapping[str, list[str]],
    now: datetime,
) -> None:
    text = encode_hit(hit)
    connection.execute(update(damages).where(damages.c.number == damage).values(hit=text))
    if not hit:
        return
    named = [point for listed in hit.values() for point in listed]
    body = {
        "damage": damage,
        "machines": sorted(hit),
        "points": named[:NAMED_POINTS],
        "count": len(named),
    }
    audit_log.append(connection, tenant, "controller", "restore_points_hit", body, now)
    log.error("restore_points_hit", tenant=tenant, **body)


class _Row(msgspec.Struct, frozen=True):
    number: int
    tenant_id: str
    object_key: str
    reason: str
    is_aside: bool
    hit: str | None


def _unfinished(connection: Connection) -> list[_Row]:
    rows = connection.execute(
        select(
            damages.c.number,
            damages.c.tenant_id,
            damages.c.object_key,
            damages.c.reason,
            damages.c.is_aside,
            damages.c.hit,
        ).where(~damages.c.is_aside | damages.c.hit.is_(None))
    )
    return [_Row(*row) for row in rows]
