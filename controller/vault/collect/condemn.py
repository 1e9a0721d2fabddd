"""Find what nobody needs and put it under tombstones: one generation of a collection.

It marks from every restore point, every young tree and every pin; lays tombstones on
what is neither marked nor young; spares what was pinned or committed meanwhile; and puts
the tombstones in force, all at once, while nobody can pin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy import Connection, select

from controller.db.database import Database
from controller.db.schema import chunks, packs
from controller.store.store import ObjectStore
from controller.vault import index
from controller.vault.claims import Claims
from controller.vault.collect import generation as rows
from controller.vault.collect.generation import Generation
from controller.vault.collect.mark import MarkingStoppedError, follow
from controller.vault.collect.marks import Marks, Tree, between
from controller.vault.collect.sweep import Pack, Swept
from controller.vault.keys import PointKey, parse_key, point_key
from controller.vault.upload.pins import Pins, prefix_of
from protocol.errors import Code
from protocol.vault.chunk import ChunkId, Kind
from protocol.vault.pack import PACK_BYTES, PackId
from protocol.vault.point import decode_envelope, verify_point

log = structlog.get_logger()

_SCANNED_AT_ONCE = 10_000
LAID_AT_ONCE = 2_000
_SPARED_AT_ONCE = 2_000
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are kept, and what is worth the work.

    `undo`: a forgotten restore point can be had back. `grace`: a dead chunk can live
    again. `young`: what a session has sent stays, so that a retry finds it. `patience`:
    sessions that began before the controller did are waited for; then they are ended.
    A pack of which less than `worth` is kept is written anew.
    """

    undo: timedelta = timedelta(days=7)
    grace: timedelta = timedelta(days=1)
    young: timedelta = timedelta(days=2)
    patience: timedelta = timedelta(hours=1)
    worth: float = 0.5


TERMS = Terms()


@dataclass(frozen=True, slots=True)
class Means:
    """What a collection works with. `scratch` is a directory for a file of its own.

    `collected` is told of a tenant whenever something of it was collected.
    """

    store: ObjectStore
    db: Database
    pins: Pins
    claims: Claims
    scratch: Path
    now: Callable[[], datetime]
    terms: Terms
    forget_sessions: Callable[[Iterable[str]], None]
    pack_bytes: int = PACK_BYTES
    collected: Callable[[str], None] = lambda _tenant: None


@dataclass(slots=True)
class Collected:
    """What a collection did, or would do."""

    generation: int = 0
    purged_points: int = 0
    trees: int = 0
    chunks: int = 0
    condemned_chunks: int = 0
    condemned_bytes: int = 0
    dead_bytes: int = 0
    missing_chunks: int = 0
    swept: Swept = field(default_factory=Swept)


@dataclass(frozen=True, slots=True)
class Step:
    """Something was done: the phase, how much of it so far, and bytes moved by this step."""

    phase: str
    done: int
    moved_bytes: int = 0


@dataclass(slots=True)
class Sight:
    """What a scan of the index saw."""

    kept: Counter[int] = field(default_factory=Counter)
    heal: list[ChunkId] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)


class Condemning:
    """One generation from its first mark to its tombstones being in force; see the module."""

    def __init__(
        self,
        means: Means,
        generation: Generation,
        marks: Marks,
        done: Collected,
        at: datetime,
        *,
        dry_run: bool,
    ) -> None:
        self._means = means
        self._generation = generation
        self._tenant = generation.tenant
        self._marks = marks
        self._done = done
        self._at = at
        self._dry_run = dry_run
        self._packs: dict[int, Pack] = {}
        self._young: set[int] = set()
        self._followed: set[str] = set()

    def mark(self) -> Iterator[Step]:
        """Reach everything from restore points, young trees and pins."""
        db, marks = self._means.db, self._marks
        horizon = self._at - self._means.terms.young
        found = db.read_now(lambda c: packs_of(c, self._tenant))
        self._packs = {p.number: p for p in found if p.number <= self._generation.last_pack}
        self._young = {n for n, pack in self._packs.items() if pack.created_at >= horizon}
        for number, pack in self._packs.items():
            if pack.kind is Kind.TREE:
                trees = db.read_now(partial(_living_trees, tenant=self._tenant, number=number))
                marks.add_trees(trees)
                if number in self._young:
                    marks.reach([tree.id for tree in trees])
                yield Step("index", number)
        roots = db.read_now(lambda c: rows.roots(c, self._tenant))
        marks.reach([*roots.values(), *unknown_roots(self._means, self._tenant)])
        self._followed |= roots.keys()
        yield from self._follow()
        marks.reach_prefixes(self._means.pins.fresh(self._tenant))
        yield from self._follow()

    def scan(self, sight: Sight) -> Iterator[Step]:
        """Compare the whole index with the marks and lay tombstones, not in force yet."""
        marked = self._marks.in_order()
        current = next(marked, None)
        due = due_by(self._means, self._tenant, self._at)
        waiting: list[ChunkId] = []
        last = b""
        while page := self._means.db.read_now(
            partial(_page, tenant=self._tenant, after=last, due=due)
        ):
            for identity, number, length, kind, is_dead, is_due in page:
                prefix = prefix_of(identity)
                while current is not None and current[0] < prefix:
                    if current[1] and current[0] != prefix_of(last):
                        sight.missing.append(current[0])
                    current = next(marked, None)
                last = identity
                self._done.chunks += 1
                if not is_due:
                    sight.kept[number] += length
                is_marked = current is not None and current[0] == prefix
                if number in self._packs and kind != self._packs[number].kind:
                    raise _contradicted(identity)
                if kind == Kind.TREE and not is_dead:
                    is_marked = is_marked and self._marks.is_reached(identity)
                if is_dead:
                    self._see_dead(identity, kind, current if is_marked else None, sight)
                elif not is_marked and number in self._packs and number not in self._young:
                    waiting.append(identity)
                    self._done.condemned_chunks += 1
                    self._done.condemned_bytes += length
                if len(waiting) >= LAID_AT_ONCE:
                    self._lay(waiting)
                    yield Step("compare", self._done.chunks)
            yield Step("compare", self._done.chunks)
        sight.missing += [
            prefix
            for prefix, must in ([current] if current is not None else []) + list(marked)
            if must and prefix != prefix_of(last)
        ]
        self._done.missing_chunks = len(sight.missing)
        self._lay(waiting)
        if sight.heal and not self._dry_run:
            log.error("dead_chunks_were_needed", tenant=self._tenant, chunks=len(sight.heal))
            self._means.db.write_now(lambda c: index.lift(c, self._tenant, sight.heal))
        yield Step("compare", self._done.chunks)

    def condemn(self) -> Iterator[Step]:
        """Spare what came to be relied on meanwhile, then put the tombstones in force."""
        db, pins, tenant = self._means.db, self._means.pins, self._tenant
        for _ in range(_ROUNDS):
            roots = db.read_now(lambda c: rows.roots(c, tenant))
            new = {p: root for p, root in roots.items() if p not in self._followed}
            fresh = pins.fresh(tenant)
            if not new and not fresh:
                break
            yield from self._spare(new, fresh)
        while True:
            with pins.lock:
                # Nobody pins from here on. Whatever was pinned last is followed first.
                for _ in self._spare({}, pins.fresh(tenant)):
                    pass
                unseen = db.write_now(
                    partial(
                        rows.condemn,
                        generation=self._generation,
                        followed=self._followed,
                        at=self._means.now(),
                    )
                )
            if not unseen:
                break
            yield from self._spare(unseen, ())
        yield Step("condemn", self._done.condemned_chunks)

    def _spare(self, roots: dict[str, ChunkId], pinned: Iterable[int]) -> Iterator[Step]:
        db, marks = self._means.db, self._marks
        prefixes = list(pinned)
        for start in range(0, len(prefixes), _SPARED_AT_ONCE):
            some = prefixes[start : start + _SPARED_AT_ONCE]
            marks.reach_prefixes(some)
            edges = [between(prefix) for prefix in some]
            db.write_now(partial(rows.spare_between, generation=self._generation, edges=edges))
            yield Step("spare", start)
        ids = list(roots.values())
        marks.reach(ids)
        self._take_back(ids)
        yield from self._follow(self._take_back)
        self._followed |= roots.keys()

    def _follow(self, reached: Callable[[list[ChunkId]], None] | None = None) -> Iterator[Step]:
        names = {number: pack.name for number, pack in self._packs.items()}
        hear = (lambda _ids: None) if reached is None else (lambda ids: reached(list(ids)))
        for count, size in follow(self._marks, self._means.store, self._tenant, names, hear):
            self._done.trees += count
            yield Step("mark", self._done.trees, size)

    def _take_back(self, ids: list[ChunkId]) -> None:
        self._means.db.write_now(partial(rows.spare, generation=self._generation, ids=ids))

    def _lay(self, waiting: list[ChunkId]) -> None:
        if waiting and not self._dry_run:
            ids = list(waiting)
            self._means.db.write_now(partial(rows.lay, generation=self._generation, ids=ids))
        waiting.clear()

    def _see_dead(
        self, identity: ChunkId, kind: int, mark: tuple[int, bool] | None, sight: Sight
    ) -> None:
        """A dead chunk that a restore point reaches cannot be; if it is, it must not stay so."""
        if mark is None or not mark[1]:
            return
        if kind == Kind.DATA:
            sight.heal.append(identity)
        else:
            sight.missing.append(mark[0])


def unknown_roots(means: Means, tenant: str) -> list[ChunkId]:
    """Roots of restore points whose row is missing, since a crash came or for worse.

    Such a root is held when only the row was lost; then it is followed like others. Raises
    `MarkingStoppedError` when it is not: the database is older than the store.
    """
    found: list[ChunkId] = []
    for named in unknown_points(means, tenant):
        record = means.store.get(point_key(*named))
        root = ChunkId(verify_point(decode_envelope(record)).root)
        held = means.db.read_now(partial(index.held, tenant=tenant, ids=[root]))
        if not held:
            raise MarkingStoppedError(
                f"nothing was collected: the store has the restore point {named.point} and "
                "the database has not; stop the controller and run `stead vault rebuild`",
                code=Code.PRECONDITION,
            )
        found.append(root)
    return found


def _contradicted(chunk: ChunkId) -> MarkingStoppedError:
    return MarkingStoppedError(
        f"nothing was collected: the database says of the chunk {chunk.hex()} that it is of "
        "another kind than its pack; stop the controller and run `stead vault rebuild`",
        code=Code.PRECONDITION,
    )


def unknown_points(means: Means, tenant: str) -> list[PointKey]:
    """Restore points of the store that the database does not know."""
    known = means.db.read_now(lambda c: set(rows.roots(c, tenant)))
    found = (parse_key(key) for key, _ in means.store.list(f"{tenant}/points/"))
    return [one for one in found if isinstance(one, PointKey) and one.point not in known]


def due_by(means: Means, tenant: str, at: datetime) -> int:
    """The generation up to which chunks have been dead for a whole grace."""
    before = at - means.terms.grace
    return means.db.read_now(lambda c: rows.due_generation(c, tenant, before))


def packs_of(connection: Connection, tenant: str) -> list[Pack]:
    """Every pack of a tenant, by number."""
    found = connection.execute(
        select(packs.c.number, packs.c.id, packs.c.kind, packs.c.length, packs.c.created_at)
        .where(packs.c.tenant_id == tenant)
        .order_by(packs.c.number)
    )
    return [
        Pack(row.number, PackId(row.id), _kind_of(row.kind, row.id), row.length, row.created_at)
        for row in found
    ]


def _kind_of(word: str, pack: str) -> Kind:
    for kind in Kind:
        if kind.name.lower() == word:
            return kind
    raise MarkingStoppedError(
        f"nothing was collected: the database knows no kind of the pack {pack}; stop the "
        "controller and run `stead vault rebuild`",
        code=Code.PRECONDITION,
    )


def _living_trees(connection: Connection, tenant: str, number: int) -> list[Tree]:
    found = connection.execute(
        select(chunks.c.id, chunks.c.offset, chunks.c.length).where(chunks.c.pack_number == number)
    ).all()
    alive = index.held(connection, tenant, [ChunkId(row.id) for row in found])
    return [Tree(row.id, number, row.offset, row.length) for row in found if row.id in alive]


def _page(
    connection: Connection, tenant: str, after: bytes, due: int
) -> list[tuple[ChunkId, int, int, int, bool, bool]]:
    """Rows of the index in the order of their ids: short, so that no log grows behind it."""
    found = connection.execute(
        index.PAGE, {"tenant": tenant, "after": after, "due": due, "limit": _SCANNED_AT_ONCE}
    )
    return [tuple(row) for row in found]
