"""Look at one stored thing and do what is to be done about it, while the controller runs.

A pack is read from the disk and hashed, and its rows in the database are compared with
it; a restore point's record is compared with the database's. A pack's name is claimed
while it is looked at, so nobody writes or deletes it then.

Damage is mended at once (`controller.vault.scrub.mend`), unless the caller says that there is
too much of it, or nothing is there at all: then something else is wrong, such as a
directory that is not mounted, and nothing is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Event

import structlog
from sqlalchemy import Connection

from controller.audit import log as audit_log
from controller.db.database import Database
from controller.store.store import ObjectStore
from controller.vault.check import Fault, child_faults, row_faults
from controller.vault.claims import Claims
from controller.vault.keys import PackKey, PointKey, pack_key, point_key
from controller.vault.scrub import rounds
from controller.vault.scrub.examine import Examined, Verdict, examine
from controller.vault.scrub.mend import mend, name_hits, note_incomplete
from controller.vault.scrub.records import Problem, mend_record, record_problem
from controller.vault.scrub.rounds import Counts, NextPack, Position
from protocol.ids import MachineId, PointId, TenantId
from protocol.vault.chunk import Kind
from protocol.vault.pack import read_index

log = structlog.get_logger()

_PROBES = 16


@dataclass(slots=True)
class Seen:
    """What looks have found: faults that stay, and damages that were mended."""

    counts: Counts = field(default_factory=Counts)
    faults: list[Fault] = field(default_factory=list)
    damages: list[int] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Take in what another look has found."""
        self.counts.add(other.counts)
        self.faults += other.faults
        self.damages += other.damages


class Look:
    """Looks at things for whoever decides which; one thread at a time, and it blocks.

    Once `stopping` is set, what would take long raises `StoppedError`.
    """

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        claims: Claims,
        *,
        now: Callable[[], datetime],
        stopping: Event,
    ) -> None:
        self._stopping = stopping
        self._store = store
        self._db = db
        self._claims = claims
        self._now = now

    def after(
        self, tenant: str, position: Position, *, may_mend: bool, read_only: bool = False
    ) -> tuple[Seen, Position | None]:
        """Look at what follows a position; the new position, None at the end."""
        if not position.points:
            following = self._db.read_now(
                partial(rounds.next_pack, tenant=tenant, after=position.after)
            )
            if following is None:
                return Seen(), Position(points=True)
            seen = self.at_pack(following.named, may_mend=may_mend, read_only=read_only)
            return seen, Position(after=following.named.pack)
        point = self._db.read_now(partial(rounds.next_point, tenant=tenant, after=position.after))
        if point is None:
            return Seen(), None
        named = PointKey(TenantId(tenant), MachineId(point[0]), PointId(point[1]))
        return self._at_point(named, read_only=read_only), Position(True, named.point)

    def at_pack(self, named: PackKey, *, may_mend: bool, read_only: bool = False) -> Seen:
        """Look at one pack. With `read_only` nothing is changed, whatever is found."""
        seen = Seen()
        with self._claims.claimed(*named):
            known = self._db.read_now(partial(rounds.find_pack, named=named))
            if known is None:
                return seen
            found = examine(self._store, named)
            seen.counts.packs += 1
            seen.counts.bytes += known.length
            if found.verdict is Verdict.SOUND:
                seen.faults += self._sound(known, found)
                if not read_only:
                    self._readable(pack_key(*named), named.tenant)
                return seen
            if found.verdict is not Verdict.UNREADABLE and not read_only:
                found = self._believed(named, found, may_mend=may_mend)
            if found.verdict is Verdict.UNREADABLE or read_only:
                self._trouble(named, found, seen, read_only=read_only)
                return seen
            seen.counts.damaged += 1
            done = mend(self._store, self._db, self._claims, named, found, self._now())
        seen.damages.append(done.damage)
        if done.lost:
            # The pack's name is free again: this reads all trees and takes a while.
            name_hits(self._store, self._db, named.tenant, done.damage, self._now(), self._stopping)
        return seen

    def _sound(self, known: NextPack, found: Examined) -> list[Fault]:
        """What the database has wrong of a pack that is right."""
        placed = read_index(found.content)
        faults = list(row_faults(self._db, known.named, known.number, placed))
        if any(chunk.kind is Kind.TREE for chunk in placed):
            faults += child_faults(self._db, known.named, found.content, placed)
        if not faults:
            return []
        # A collection may have dropped the pack while this was asked.
        again = self._db.read_now(partial(rounds.find_pack, named=known.named))
        return faults if again == known else []

    def _believed(self, named: PackKey, found: Examined, *, may_mend: bool) -> Examined:
        """The verdict, or `UNREADABLE` where acting on it could do more harm than good."""
        if not may_mend:
            reason = (
                f"{found.reason}; so many packs were damaged today that it may be the "
                "machine: look at its disks and memory, then run `stead vault scrub --now`"
            )
            return Examined(Verdict.UNREADABLE, reason)
        if found.verdict is Verdict.MISSING and not self._store_is_there(named.tenant):
            reason = (
                "the pack is missing, and so are the others: the store's directory may not be "
                "mounted; nothing was given up"
            )
            return Examined(Verdict.UNREADABLE, reason)
        return found

    def _store_is_there(self, tenant: str) -> bool:
        """Whether most of some packs that should be there are."""
        names = self._db.read_now(partial(rounds.some_packs, tenant=tenant, count=_PROBES))
        there = sum(self._store.exists(pack_key(tenant, name)) for name in names)
        return there * 2 >= len(names)

    def _trouble(self, named: PackKey, found: Examined, seen: Seen, *, read_only: bool) -> None:
        key = pack_key(*named)
        seen.faults.append(Fault(key, None, found.reason))
        if found.verdict is Verdict.UNREADABLE:
            seen.counts.unreadable += 1
        else:
            seen.counts.damaged += 1
        if read_only:
            return
        at = self._now()

        def note(connection: Connection) -> None:
            if rounds.note_unreadable(connection, named.tenant, key, found.reason, at):
                body = {"pack": named.pack, "reason": found.reason}
                audit_log.append(
                    connection, named.tenant, "controller", "pack_unreadable", body, at
                )

        self._db.write_now(note)
        log.error("pack_unreadable", pack=key, reason=found.reason)

    def _readable(self, key: str, tenant: str) -> None:
        if self._db.read_now(partial(rounds.is_unreadable, tenant=tenant, key=key)):
            self._db.write_now(partial(rounds.note_readable, tenant=tenant, key=key))

    def _at_point(self, named: PointKey, *, read_only: bool) -> Seen:
        seen = Seen(Counts(points=1))
        found = record_problem(self._store, self._db, named)
        if found is None:
            return self._rooted(named, seen, read_only=read_only)
        if found.is_missing and not self._store_is_there(named.tenant):
            found = Problem(f"{found.reason}, and so is everything else", is_unreadable=True)
        if not read_only and not found.is_unreadable:
            left = mend_record(self._store, self._db, named, found, self._now())
            if left is None:
                seen.counts.damaged += 1
                return seen
        seen.faults.append(Fault(point_key(*named), None, found.reason))
        if found.is_unreadable:
            seen.counts.unreadable += 1
        else:
            seen.counts.damaged += 1
        return seen

    def _rooted(self, named: PointKey, seen: Seen, *, read_only: bool) -> Seen:
        """See that the root of a restore point is held; what is below, its packs' look tells."""
        root = self._db.read_now(partial(rounds.missing_root, point=named.point))
        if root is None:
            return seen
        reason = "the root of the restore point is in no pack"
        seen.faults.append(Fault(point_key(*named), root, reason))
        seen.counts.damaged += 1
        if not read_only:
            now = self._now()
            act = partial(
                note_incomplete,
                tenant=named.tenant,
                point=named.point,
                missing=[(root, root)],
                now=now,
            )
            damage = self._db.write_now(act)
            if damage is not None:
                name_hits(self._store, self._db, named.tenant, damage, now, self._stopping)
        return seen
