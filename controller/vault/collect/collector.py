"""Collect garbage: what no restore point reaches, of one tenant, beside its backups.

A collection is a generation. It begins by letting go of what ended sessions had pinned.
Then it marks from every restore point, every young tree and every pin; lays tombstones
on what is neither marked nor young; spares what was pinned or committed meanwhile; and
puts the tombstones in force, all at once, while nobody can pin. From then on a chunk
under one is not held. A grace later a sweep gives the room back (`controller.vault.collect.sweep`).

Two things hold at any moment, also after a crash: no chunk that a restore point reaches
is dead, and what a tree that lives names lives too.

`Collector.run` yields after every step. It blocks; whoever drives it may rest between
steps, or stop after any of them, and then nothing was condemned.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection, select

from controller.db.schema import packs
from controller.vault.collect import generation as rows
from controller.vault.collect.condemn import (
    LAID_AT_ONCE,
    Collected,
    Condemning,
    Means,
    Sight,
    Step,
    due_by,
    packs_of,
    unknown_points,
    unknown_roots,
)
from controller.vault.collect.generation import Generation
from controller.vault.collect.mark import MarkingStoppedError
from controller.vault.collect.marks import Marks
from controller.vault.collect.steady import Steady
from controller.vault.collect.sweep import Pack, Sweep
from controller.vault.forget.forgotten import purge
from controller.vault.keys import PackKey, parse_key
from controller.vault.upload.adopt import adopt
from controller.vault.upload.sessions import fence_off, lapse
from protocol.errors import Code, SteadError

log = structlog.get_logger()


class SessionsInTheWayError(SteadError):
    """Backups are under way that began before this controller was started."""

    code = Code.PRECONDITION


class Collector:
    """Collects one tenant after the other; `run` is called by one thread at a time."""

    def __init__(self, means: Means, steady: Steady) -> None:
        self._means = means
        self._began_at = means.now()
        self.steady = steady
        """The time by which something may be deleted."""

    def run(
        self, tenant: str, done: Collected, *, dry_run: bool = False, accept_losses: bool = False
    ) -> Iterator[Step]:
        """Collect; `done` is filled in on the way. Yields after every step.

        Raises `SessionsInTheWayError`, `MarkingStoppedError` when something that is
        needed is damaged or missing (with `accept_losses` a missing chunk is no reason),
        `ClockLeaptError`, and what store and database raise. Nothing that was condemned
        before is lost by it.
        """
        means = self._means
        at = self.steady.now()
        if dry_run:
            generation = Generation(tenant, 0, self._means.db.read_now(rows.newest_pack))
        else:
            while self._means.db.write_now(lambda c: rows.abandon(c, tenant, LAID_AT_ONCE)):
                yield Step("tidy", 0)
            for named in unknown_points(means, tenant):
                adopt(means.store, means.db, named, means.now())
            # By an old database nothing is deleted, not even what it calls doomed or forgotten.
            is_current = not unknown_roots(means, tenant)
            for _ in self._sweep(tenant, 0, at).delete_doomed() if is_current else ():
                yield Step("tidy", 0)
            generation = self._begin(tenant)
            done.generation = generation.number
            yield Step("begin", 0)
            if not is_current:
                log.warning("restore_points_without_row", tenant=tenant)
            for _ in (
                purge(means.store, means.db, tenant, at, means.terms.undo) if is_current else ()
            ):
                done.purged_points += 1
                yield Step("forget", done.purged_points)
        with Marks(self._means.scratch / f"marks-{tenant}.scratch") as marks:
            work = Condemning(means, generation, marks, done, at, dry_run=dry_run)
            yield from work.mark()
            sight = Sight()
            yield from work.scan(sight)
            if sight.missing and not accept_losses:
                raise _missing(sight.missing)
            if not dry_run:
                yield from work.condemn()
        yield from self._sweep_by(sight, generation, done, at, dry_run=dry_run)
        if not dry_run:
            means.collected(tenant)

    def _begin(self, tenant: str) -> Generation:
        """Open a generation. From now on what living sessions rely on is pinned, all of it."""
        at = self._means.now()
        with self._means.pins.lock:
            alive, ended = self._means.db.write_now(lambda c: lapse(c, tenant, at))
            strangers = self._means.pins.strangers(alive)
            if strangers and at - self._began_at < self._means.terms.patience:
                raise SessionsInTheWayError(
                    f"{len(strangers)} backups are under way that began before the controller "
                    "was started; wait for them, or collect later"
                )

            def act(connection: Connection) -> Generation:
                fence_off(connection, strangers)
                return rows.begin(connection, tenant, at)

            generation = self._means.db.write_now(act)
            self._means.forget_sessions([*ended, *strangers])
            self._means.pins.begin_generation(tenant, set(alive) - set(strangers))
        return generation

    def _sweep(self, tenant: str, due: int, at: datetime) -> Sweep:
        return Sweep(
            self._means.store,
            self._means.db,
            self._means.claims,
            tenant,
            due,
            pack_bytes=self._means.pack_bytes,
            now=at,
        )

    def _sweep_by(
        self,
        sight: Sight,
        generation: Generation,
        done: Collected,
        at: datetime,
        *,
        dry_run: bool,
    ) -> Iterator[Step]:
        tenant = generation.tenant
        due = due_by(self._means, tenant, at)
        sweep = self._sweep(tenant, due, at)
        done.swept = sweep.done
        known = [
            Pack(p.number, p.name, p.kind, p.length, p.created_at, sight.kept[p.number])
            for p in self._means.db.read_now(lambda c: packs_of(c, tenant))
            if p.number <= generation.last_pack
        ]
        done.dead_bytes = sum(max(p.length - p.kept_bytes, 0) for p in known if not p.kept_bytes)
        mostly = [p for p in known if 0 < p.kept_bytes < p.length * self._means.terms.worth]
        done.dead_bytes += sum(p.length - p.kept_bytes for p in mostly)
        if dry_run:
            return
        moved = 0
        # What makes room goes before what takes some.
        for count in sweep.drop([pack for pack in known if not pack.kept_bytes]):
            moved += count
            yield Step("drop", sweep.done.dropped_packs, count)
        for count in sweep.rewrite(mostly):
            moved += count
            yield Step("rewrite", sweep.done.rewritten_packs, count)
        yield from self._doom_strays(generation, sweep)

    def _doom_strays(self, generation: Generation, sweep: Sweep) -> Iterator[Step]:
        """Packs that a crash left without a row go, unless they come again meanwhile."""
        tenant = generation.tenant
        if unknown_points(self._means, tenant):
            return
        due_at = self._means.now() + self._means.terms.young
        for key, _ in self._means.store.list(f"{tenant}/packs/"):
            named = parse_key(key)
            if not isinstance(named, PackKey):
                continue
            with self._means.claims.claimed(tenant, named.pack):
                if not self._means.db.read_now(partial(_is_entered, named=named)):
                    self._means.db.write_now(partial(_doom_stray, named=named, due_at=due_at))
                    yield Step("tidy", 0)
        for _ in sweep.delete_doomed():
            yield Step("tidy", 0)


def _is_entered(connection: Connection, named: PackKey) -> bool:
    found = select(packs.c.number).where(
        packs.c.tenant_id == named.tenant, packs.c.id == named.pack
    )
    return connection.scalar(found) is not None


def _doom_stray(connection: Connection, named: PackKey, due_at: datetime) -> None:
    if not _is_entered(connection, named):
        rows.doom(connection, named.tenant, named.pack, due_at)


def _missing(prefixes: list[int]) -> MarkingStoppedError:
    named = prefixes[0].to_bytes(8, "big").hex()
    return MarkingStoppedError(
        f"nothing was collected: {len(prefixes)} chunks that restore points need are lost, the "
        f"first one begins with {named}; `stead vault check` names the restore points' trees. "
        "Back up again, forget what is damaged, or accept the losses",
        code=Code.CHUNK_MISSING,
    )
