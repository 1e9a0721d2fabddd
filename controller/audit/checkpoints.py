"""Sign what the audit logs are: a checkpoint of each, a minute or 256 entries after the last.

A log whose newest entries do not follow the last checkpoint is not signed: a controller
whose database was edited behind its back says nothing rather than something false.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, func, insert, literal, select, union_all

from controller import clock
from controller.audit.chain import EMPTY, Broken, Entry, Head, verify
from controller.audit.log import INSTALLATION, entries, head
from controller.audit.tree import WIDTH, fill, forget_tree, stored_node, unfilled
from controller.db.database import Database
from controller.db.schema import audit, audit_checkpoints, installation, tenants
from controller.db.upsert import upsert
from protocol.checkpoint import (
    Checkpoint,
    SignedCheckpoint,
    decode_checkpoint,
    encode_signed,
    sign_checkpoint,
)
from protocol.errors import Code, SteadError
from protocol.merkle import root_of

log = structlog.get_logger()

AFTER = timedelta(minutes=1)
AFTER_ENTRIES = 256
LOOK_EVERY = timedelta(seconds=2)
PAGE = 1000
FILL_AT_ONCE = 32
"""Rows of 256 entries that one act makes: all writers wait for it."""

_SIGNER = "checkpoint signer "


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that the database has, and its signed bytes as they travel."""

    checkpoint: Checkpoint
    signed: bytes


@dataclass(frozen=True, slots=True)
class Sealer:
    """The issuing authority's key, and its certificate in DER."""

    key: ec.EllipticCurvePrivateKey
    certificate: bytes


def listed(connection: Connection, log_id: str, *, after: int = 0, limit: int = 1000) -> list[Kept]:
    """Up to `limit` checkpoints of more than `after` entries, smallest first."""
    query = (
        select(audit_checkpoints, installation.c.value.label("certificate"))
        .join(installation, installation.c.key == _SIGNER + audit_checkpoints.c.signer)
        .where(audit_checkpoints.c.tenant_id == log_id, audit_checkpoints.c.size > after)
        .order_by(audit_checkpoints.c.size)
        .limit(limit)
    )
    return [_kept(row) for row in connection.execute(query)]


def newest(connection: Connection, log_id: str) -> Kept | None:
    """The checkpoint of most entries; None before the first."""
    size = connection.scalar(
        select(func.max(audit_checkpoints.c.size)).where(audit_checkpoints.c.tenant_id == log_id)
    )
    found = [] if size is None else listed(connection, log_id, after=size - 1, limit=1)
    return found[0] if found else None


def logs_that_grew(connection: Connection) -> list[tuple[str, int, int]]:
    """Of every log with entries that no checkpoint covers: its id, all entries, those covered."""
    ids = union_all(select(literal(INSTALLATION).label("id")), select(tenants.c.id)).subquery()
    entries_of = (
        select(func.max(audit.c.seq)).where(audit.c.tenant_id == ids.c.id).scalar_subquery()
    )
    covered = (
        select(func.max(audit_checkpoints.c.size))
        .where(audit_checkpoints.c.tenant_id == ids.c.id)
        .scalar_subquery()
    )
    rows = connection.execute(select(ids.c.id, entries_of, covered)).all()
    counted = [(row[0], row[1] or 0, row[2] or 0) for row in rows]
    return [one for one in counted if one[1] != one[2]]


@dataclass(slots=True)
class Checkpoints:
    """Makes checkpoints by itself and when it is asked."""

    db: Database
    sealer: Callable[[], Sealer]
    """Asked each time: the issuing authority can be rotated."""
    after: timedelta = AFTER
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _broken: dict[str, str] = field(default_factory=dict)
    _tried_at: dict[str, datetime] = field(default_factory=dict)

    async def run_forever(self) -> None:
        """Sign every log that grew, again and again."""
        while True:
            try:
                for log_id, size, covered in await self.db.read(logs_that_grew):
                    if not self.rests(log_id):
                        await self._make_when_due(log_id, size - covered)
            except SteadError as error:
                log.warning("checkpoints_not_made", reason=str(error))
            except Exception:
                # A mistake of ours must not end the signing for good.
                log.exception("checkpoints_failed_unexpectedly")
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def _make_when_due(self, log_id: str, more: int) -> None:
        """Sign a log in its time. What is wrong with one keeps no other one from that."""
        try:
            if more >= AFTER_ENTRIES or await self._is_due(log_id):
                await self.make(log_id)
        except SteadError as error:
            self._noted(log_id, str(error))

    async def make(self, log_id: str) -> Kept | None:
        """The checkpoint of a log as it is now; an old one when nothing follows it soundly."""
        async with self._turn:
            last = await self.db.read(lambda c: newest(c, log_id))
            begun = EMPTY if last is None else Head(last.checkpoint.size, last.checkpoint.head)
            now_at = await self.db.read(lambda c: head(c, log_id))
            if now_at == begun:
                return last
            reason = await asyncio.to_thread(self._fault, log_id, begun, now_at)
            if not reason and last is not None and not await self._is_root_of(last.checkpoint):
                reason = f"what comes before is not what was signed at entry {begun.seq}"
            if self._noted(log_id, reason):
                return last
            await self._fill(log_id, now_at.seq)
            return await self._sign(log_id, now_at)

    async def _is_root_of(self, signed: Checkpoint) -> bool:
        """Whether the stored log still has the root that was signed.

        The rows of the tree are made of the entries: damaged ones are made anew.
        """

        def has(connection: Connection) -> bool:
            try:
                return root_of(signed.size, stored_node(connection, signed.log)) == signed.root
            except SteadError as error:
                if error.code is not Code.DATABASE_DAMAGED:
                    raise
                return False

        if await self.db.read(has):
            return True
        await self.db.write(lambda c: forget_tree(c, signed.log))
        await self._fill(signed.log, signed.size)
        return await self.db.read(has)

    async def _fill(self, log_id: str, size: int) -> None:
        while await self.db.read(lambda c: unfilled(c, log_id, size)):
            await self.db.write(lambda c: _fill_some(c, log_id, size))

    async def _sign(self, log_id: str, now_at: Head) -> Kept:
        root = await self.db.read(lambda c: root_of(now_at.seq, stored_node(c, log_id)))
        made = Checkpoint(log_id, now_at.seq, root, now_at.hash, clock.now())
        sealer = self.sealer()
        signed = sign_checkpoint(made, sealer.key, sealer.certificate)
        await self.db.write(lambda c: _add(c, made, signed))
        return Kept(made, encode_signed(signed))

    def fault_of(self, log_id: str) -> str:
        """Why the log could not be signed when that was tried last; empty when it could."""
        return self._broken.get(log_id, "")

    def rests(self, log_id: str) -> bool:
        """A log that could not be signed is not read again every two seconds."""
        tried_at = self._tried_at.get(log_id)
        if not self._broken.get(log_id) or tried_at is None:
            return False
        return abs(clock.now() - tried_at) < self.after

    async def _is_due(self, log_id: str) -> bool:
        last = await self.db.read(lambda c: newest(c, log_id))
        if last is None:
            return True
        # A clock that was set back must not end the signing.
        return abs(clock.now() - last.checkpoint.at) >= self.after

    def _fault(self, log_id: str, begun: Head, now_at: Head) -> str:
        """Why the entries after a checkpoint do not follow it; empty when they do."""
        if now_at.seq < begun.seq:
            return f"the log ends at entry {now_at.seq}, and {begun.seq} were signed"
        if now_at.seq == begun.seq:
            return f"entry {begun.seq} is not the one that was signed"
        found = verify(self._entries(log_id, begun.seq, now_at.seq), log_id, after=begun)
        if isinstance(found, Broken):
            return f"entry {found.seq}: {found.reason}"
        return "" if found.head == now_at else "entries are missing"

    def _entries(self, log_id: str, after: int, until: int) -> Iterator[Entry]:
        while after < until:
            limit = min(PAGE, until - after)
            page = self.db.read_now(lambda c, a=after, n=limit: entries(c, log_id, a, n))  # type: ignore[misc]
            if not page:
                return
            yield from page
            after = page[-1].seq

    def _noted(self, log_id: str, reason: str) -> bool:
        """Whether there is a fault; it is told once."""
        if reason and self._broken.get(log_id) != reason:
            log.error("audit_log_not_signed", log=log_id or "installation", reason=reason)
        self._broken[log_id] = reason
        self._tried_at[log_id] = clock.now()
        return bool(reason)


def _kept(row: object) -> Kept:
    body, signature = row.body, row.signature  # type: ignore[attr-defined]
    certificate = row.certificate  # type: ignore[attr-defined]
    signed = encode_signed(SignedCheckpoint(body, signature, certificate))
    return Kept(decode_checkpoint(body), signed)


def _fill_some(connection: Connection, log_id: str, size: int) -> None:
    left = unfilled(connection, log_id, size)
    full = (size >> 8) - left
    fill(connection, log_id, min(size, (full + FILL_AT_ONCE) * WIDTH))


def _add(connection: Connection, made: Checkpoint, signed: SignedCheckpoint) -> None:
    signer = hashlib.sha256(signed.certificate).hexdigest()
    connection.execute(
        upsert(connection, installation).on_conflict_do_nothing(),
        {"key": _SIGNER + signer, "value": signed.certificate},
    )
    connection.execute(
        insert(audit_checkpoints),
        {
            "tenant_id": made.log,
            "size": made.size,
            "at": made.at,
            "body": signed.body,
            "signature": signed.signature,
            "signer": signer,
        },
    )


def require_checkpoint(connection: Connection, log_id: str, size: int) -> Checkpoint:
    """The checkpoint of exactly so many entries; NOT_FOUND when none was made."""
    found = listed(connection, log_id, after=size - 1, limit=1) if size else []
    if not found or found[0].checkpoint.size != size:
        raise SteadError(f"the log has no checkpoint of {size} entries", code=Code.NOT_FOUND)
    return found[0].checkpoint
