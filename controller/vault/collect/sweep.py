"""Give the room of dead chunks back: drop dead packs, write mostly dead ones anew.

New packs are durable before the index moves, and the index has moved before an old
object is deleted. Every step can be the last one before a crash: what is left over is
dead space that the next collection finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection, delete, select, update

from controller.db.database import Database
from controller.db.schema import chunks, doomed_packs, packs
from controller.store.store import ObjectStore, StoreFailedError, StoreFullError
from controller.vault import index
from controller.vault.check import rows_of
from controller.vault.claims import Claims
from controller.vault.collect import generation as rows
from controller.vault.collect.still_needed import Needs
from controller.vault.keys import pack_key
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId, Kind, chunk_id
from protocol.vault.pack import PackBuilder, PackId, Placed

log = structlog.get_logger()

_PACKS_AT_ONCE = 64
_ROWS_AT_ONCE = 4_000
"""Other writers wait for a transaction."""


class StillNeededError(SteadError):
    """The database says that an object may go, and the object itself that it may not."""

    code = Code.PRECONDITION


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack as the sweep sees it; `kept_bytes` is what nobody may drop of it."""

    number: int
    name: PackId
    kind: Kind
    length: int
    created_at: datetime
    kept_bytes: int = 0


@dataclass(slots=True)
class Swept:
    """What was given back."""

    dropped_packs: int = 0
    rewritten_packs: int = 0
    freed_bytes: int = 0
    moved_bytes: int = 0
    problems: int = 0


class Sweep:
    """One tenant's sweep. `due` is the generation up to which chunks may be dropped."""

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        claims: Claims,
        tenant: str,
        due: int,
        *,
        pack_bytes: int,
        now: datetime,
    ) -> None:
        self._store = store
        self._db = db
        self._claims = claims
        self._tenant = tenant
        self._due = due
        self._pack_bytes = pack_bytes
        self._now = now
        self._needs = Needs(store, db, tenant)
        self._unreadable: set[PackId] = set()
        self.done = Swept()

    def drop(self, dead: Sequence[Pack]) -> Iterator[int]:
        """Drop packs in which nothing is kept, some at a time; yields after each step."""
        left = list(dead)
        while left:
            looked, gone = self._db.write_now(partial(self._drop, some=left[:_PACKS_AT_ONCE]))
            left = left[looked:]
            self.done.dropped_packs += len(gone)
            self.done.freed_bytes += sum(pack.length for pack in gone)
            yield 0
            yield from self.delete_doomed()

    def rewrite(self, sources: Sequence[Pack]) -> Iterator[int]:
        """Write what is kept of mostly dead packs into new ones; yields the bytes moved."""
        for group in _grouped(sources, self._pack_bytes):
            try:
                yield from self._rewrite(group)
            except StoreFullError:
                # There is no room to move things; what was dropped has made some already.
                log.warning("vault_rewrite_put_off", tenant=self._tenant)
                return
            yield from self.delete_doomed()

    def delete_doomed(self) -> Iterator[int]:
        """Delete objects that no row names any more and whose time has come.

        Raises `StillNeededError` at one whose own index says otherwise.
        """
        found = self._db.read_now(
            lambda c: c.scalars(
                select(doomed_packs.c.id).where(
                    doomed_packs.c.tenant_id == self._tenant, doomed_packs.c.due_at <= self._now
                )
            ).all()
        )
        for start in range(0, len(found), _PACKS_AT_ONCE):
            gone: list[str] = []
            for name in found[start : start + _PACKS_AT_ONCE]:
                with self._claims.claimed(self._tenant, name):
                    is_doomed = self._db.read_now(partial(self._is_doomed, name=name))
                    if is_doomed and self._delete(PackId(name)):
                        gone.append(name)
                yield 0
            # Who stores one of these again meanwhile has taken its row away already.
            self._db.write_now(partial(self._forget_doomed, names=gone))
            yield 0

    def _delete(self, name: PackId) -> bool:
        """Whether it is deleted; what cannot be read waits for the next collection."""
        if name in self._unreadable:
            return False
        try:
            needed = self._needs.first_of(name)
        except StoreFailedError as error:
            self.done.problems += 1
            self._unreadable.add(name)
            log.warning("doomed_pack_unreadable", tenant=self._tenant, pack=name, reason=str(error))
            return False
        if needed is not None:
            raise StillNeededError(
                f"the pack {name} was to be deleted and is the only one that holds the chunk "
                f"{needed.hex()}: the database is old or damaged, so nothing more is deleted; "
                "stop the controller and run `stead vault rebuild`"
            )
        self._store.delete(pack_key(self._tenant, name))
        return True

    def _is_doomed(self, connection: Connection, name: str) -> bool:
        """Asked while the name is claimed: nobody can enter the pack meanwhile."""
        entered = connection.scalar(
            select(packs.c.number).where(packs.c.tenant_id == self._tenant, packs.c.id == name)
        )
        doomed = connection.scalar(
            select(doomed_packs.c.id).where(
                doomed_packs.c.tenant_id == self._tenant, doomed_packs.c.id == name
            )
        )
        return entered is None and doomed is not None

    def _forget_doomed(self, connection: Connection, names: Sequence[str]) -> None:
        connection.execute(
            delete(doomed_packs).where(
                doomed_packs.c.tenant_id == self._tenant, doomed_packs.c.id.in_(names)
            )
        )

    def _drop(self, connection: Connection, some: Sequence[Pack]) -> tuple[int, list[Pack]]:
        """Drop the rows of packs until it takes long; how many were looked at, and those gone."""
        gone: list[Pack] = []
        count = 0
        for looked, pack in enumerate(some, 1):
            dead, others = rows.due_in(connection, self._tenant, pack.number, self._due)
            if others:
                continue
            rows.remove_pack(connection, self._tenant, pack.number, dead, self._now)
            gone.append(pack)
            count += len(dead)
            if count >= _ROWS_AT_ONCE:
                return looked, gone
        return len(some), gone

    def _rewrite(self, group: Sequence[Pack]) -> Iterator[int]:
        builder = PackBuilder(group[0].kind)
        placed: list[Placed] = []
        moved: dict[int, set[ChunkId]] = {}
        for pack in group:
            kept = self._kept(pack)
            if kept is None:
                self.done.problems += 1
                continue
            moved[pack.number] = {identity for identity, _ in kept}
            placed += [
                Placed(one, pack.kind, builder.add(one, stored), len(stored))
                for one, stored in kept
            ]
            yield sum(len(stored) for _, stored in kept)
        if not placed:
            return
        length = builder.finished_bytes
        name, pieces = builder.finish()
        with self._claims.claimed(self._tenant, name):
            self._store.put(pack_key(self._tenant, name), pieces)
            yield 0
            made = Pack(0, name, group[0].kind, length, max(pack.created_at for pack in group))
            done = self._db.write_now(partial(self._move, made=made, placed=placed, moved=moved))
        freed = [pack for pack in group if pack.number in done]
        self.done.rewritten_packs += len(freed)
        self.done.moved_bytes += sum(chunk.length for chunk in placed)
        self.done.freed_bytes += sum(pack.length for pack in freed) - length
        yield 0

    def _kept(self, pack: Pack) -> list[tuple[ChunkId, bytes]] | None:
        """What must stay of a pack, each compared with its id; None when it cannot be read."""

        def read(connection: Connection) -> list[Placed]:
            dead, _ = rows.due_in(connection, self._tenant, pack.number, self._due)
            gone = set(dead)
            found = [one for one in rows_of(connection, pack.number) if one.id not in gone]
            return sorted(found, key=lambda one: one.offset)

        kept: list[tuple[ChunkId, bytes]] = []
        for one in self._db.read_now(read):
            try:
                stored = self._store.get(pack_key(self._tenant, pack.name), one.offset, one.length)
            except StoreFullError:
                raise
            except SteadError as error:
                self._say_unreadable(pack, str(error))
                return None
            if chunk_id(stored) != one.id:
                self._say_unreadable(pack, f"chunk {one.id.hex()} is damaged")
                return None
            kept.append((one.id, stored))
        return kept

    def _say_unreadable(self, pack: Pack, reason: str) -> None:
        log.error("vault_rewrite_stopped", tenant=self._tenant, pack=pack.name, reason=reason)

    def _move(
        self,
        connection: Connection,
        made: Pack,
        placed: Sequence[Placed],
        moved: Mapping[int, set[ChunkId]],
    ) -> set[int]:
        """Let the index say the new place; the numbers of the packs that went for it.

        A chunk that came back to life since it was left behind keeps its old pack.
        """
        index.record_pack(
            connection, self._tenant, made.name, made.kind, made.length, (), made.created_at,
            revive_dead=False,
        )  # fmt: skip
        number = connection.scalar(
            select(packs.c.number).where(packs.c.tenant_id == self._tenant, packs.c.id == made.name)
        )
        gone: set[int] = set()
        places = {chunk.id: chunk for chunk in placed}
        for source, ids in moved.items():
            if source == number:
                continue
            dead, _ = rows.due_in(connection, self._tenant, source, self._due)
            here = set(
                connection.scalars(select(chunks.c.id).where(chunks.c.pack_number == source))
            )
            if here - set(dead) - ids:
                continue
            for identity in sorted(here & ids):
                connection.execute(
                    update(chunks)
                    .where(chunks.c.tenant_id == self._tenant, chunks.c.id == identity)
                    .values(pack_number=number, offset=places[identity].offset)
                )
            left = sorted(set(dead) - ids)
            rows.remove_pack(connection, self._tenant, source, left, self._now)
            gone.add(source)
        return gone


def _grouped(sources: Sequence[Pack], pack_bytes: int) -> Iterator[list[Pack]]:
    """Sources of one kind whose rest fills about one new pack."""
    for kind in Kind:
        group: list[Pack] = []
        size = 0
        for pack in sources:
            if pack.kind is not kind:
                continue
            if group and size + pack.kept_bytes > pack_bytes:
                yield group
                group, size = [], 0
            group.append(pack)
            size += pack.kept_bytes
        if group:
            yield group
