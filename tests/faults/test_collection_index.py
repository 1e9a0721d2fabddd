"""The index is lost, old or damaged: a collection refuses, and deletes nothing that is needed.

Old is a copy of the database from before the last backup, put back as after a disk died.
What restore points need is read from the objects alone: they are the ledger.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from controller.db.database import Database
from controller.store.store import StoreFailedError
from controller.vault.check import check
from controller.vault.collect.condemn import Collected, Terms
from controller.vault.forget import forgotten
from controller.vault.scrub.rebuild import rebuild
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId
from tests.faults.collection_world import Tally
from tests.unit.controller_vault.world import Member, World, an_id, data_chunk, tree_chunk

SEED = 20261127
TERMS = Terms(
    undo=timedelta(hours=2),
    grace=timedelta(hours=1),
    young=timedelta(hours=1),
    patience=timedelta(),
    worth=0.9,
)
Chunk = tuple[ChunkId, bytes]


@dataclass
class Vault:
    """A world whose database can be put back; `points` is what each restore point needs."""

    home: Path
    world: World
    machine: Member
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    points: dict[str, list[Chunk]] = field(default_factory=dict)

    def some(self, count: int = 6) -> list[Chunk]:
        """New chunks of content."""
        return [data_chunk(self.chance.randbytes(2_000)) for _ in range(count)]

    async def back_up(self, leaves: list[Chunk], *, commit: bool = True) -> str:
        """As an agent does it: ask, and send what is not held, children first."""
        who = self.machine.identity
        begun = await self.world.vault.begin(who, an_id("rp"))
        tree = tree_chunk(b"tree", [one for one, _ in leaves])
        made = [*leaves, tree, tree_chunk(b"root", [tree[0]])]
        held = await self.world.vault.has(who, begun.session.id, [one for one, _ in made])
        to_send = [stored for (_, stored), is_held in zip(made, held, strict=True) if not is_held]
        await self.world.send(self.machine, begun, [to_send], flush=True)
        if not commit:
            return ""
        record = await self.world.point(self.machine, made[-1][0], begun)
        session = begun.session
        done = await self.world.vault.commit(who, session.id, session.fence, record)
        self.points[done.point] = made
        self.world.clock.advance(minutes=1)
        return done.point

    def forget(self, point: str) -> None:
        act = partial(forgotten.forget, point=point, reason="a test", at=self.world.clock.at)
        self.world.db.write_now(act)
        del self.points[point]

    def collect(self, *, accept_losses: bool = False, **later: float) -> Collected:
        """A whole collection, so much later."""
        self.world.clock.advance(**later)
        done = Collected()
        run = self.world.vault.collector.run
        for _ in run(self.machine.identity.tenant, done, accept_losses=accept_losses):
            pass
        return done

    def refused(self, *codes: Code, **later: float) -> str:
        """A collection that is refused and deletes nothing; what it says."""
        before = self.objects()
        with pytest.raises(SteadError) as refused:
            self.collect(accept_losses=False, **later)
        assert refused.value.code in codes, refused.value
        assert self.objects() == before
        return str(refused.value)

    def objects(self) -> list[str]:
        return [key for key, _ in self.world.store.list()]

    async def copy(self, name: str) -> Path:
        """A copy of the database, as a backup of the stopped controller makes it."""
        await self.world.close()
        shutil.copy(self.home / "stead.db", self.home / name)
        self._open()
        return self.home / name

    async def put_back(self, copy: Path | None) -> None:
        """What the guide says: the copy in its place, without what belongs to the other."""
        await self.world.close()
        for left in self.home.glob("stead.db*"):
            left.unlink()
        if copy is not None:
            shutil.copy(copy, self.home / "stead.db")
        self._open()

    def _open(self) -> None:
        self.world.db = Database.open(f"sqlite:///{self.home}/stead.db")
        self.world.start()

    def rebuild(self) -> list[str]:
        return rebuild(self.world.store, self.world.db, now=self.world.clock.at).problems

    async def sound(self) -> bool:
        """Whether every restore point reads back whole, and nothing else is wrong."""
        for made in self.points.values():
            ids = [one for one, _ in made]
            assert await self.world.read(self.machine, ids) == [stored for _, stored in made]
        return not check(self.world.store, self.world.db).faults


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    world = World.make(tmp_path, pack_bytes=6_000, terms=TERMS)
    made = Vault(tmp_path, world, await world.machine())
    yield made
    await made.world.close()


async def test_by_an_index_older_than_the_last_backup_nothing_is_collected(vault: Vault) -> None:
    first = await vault.back_up(vault.some())
    copy = await vault.copy("old.db")
    await vault.back_up(vault.some())
    vault.forget(first)
    await vault.put_back(copy)
    said = vault.refused(Code.PRECONDITION, days=3)
    assert "stead vault rebuild" in said
    assert not vault.rebuild()
    # The index of before the forgetting has the first one still.
    vault.collect(days=3)
    vault.collect(days=3)
    assert await vault.sound()


async def test_what_was_dropped_since_the_copy_is_missed_and_the_rest_stays(vault: Vault) -> None:
    first = await vault.back_up(vault.some())
    await vault.back_up(vault.some())
    copy = await vault.copy("old.db")
    vault.forget(first)
    for _ in range(3):
        vault.collect(hours=3)
    assert await vault.sound()
    await vault.put_back(copy)
    vault.refused(Code.NOT_FOUND, Code.CHUNK_MISSING, hours=3)
    vault.rebuild()
    vault.refused(Code.NOT_FOUND, Code.CHUNK_MISSING, hours=3)
    vault.world.db.write_now(
        partial(forgotten.forget, point=first, reason="it is gone", at=vault.world.clock.at)
    )
    for _ in range(3):
        vault.collect(hours=3)
    assert await vault.sound()


async def test_what_lived_again_since_the_copy_is_not_dropped_as_dead(vault: Vault) -> None:
    shared = vault.some()
    first = await vault.back_up(shared)
    await vault.back_up(vault.some())
    vault.forget(first)
    assert vault.collect(hours=3).condemned_chunks == len(shared) + 2
    copy = await vault.copy("old.db")
    # Content lives again where it lies, the trees are sent again.
    await vault.back_up(shared)
    await vault.put_back(copy)
    vault.refused(Code.PRECONDITION, minutes=1)
    assert not vault.rebuild()
    assert await vault.sound()
    for _ in range(3):
        assert vault.collect(hours=3).missing_chunks == 0
    assert await vault.sound()


async def test_an_object_that_was_doomed_in_the_copy_and_came_again_is_kept(vault: Vault) -> None:
    shared = vault.some(2)
    first = await vault.back_up(shared)
    await vault.back_up(vault.some())
    vault.forget(first)
    vault.collect(hours=3)
    with pytest.MonkeyPatch.context() as patched:
        # It dies between the rows and the objects.
        patched.setattr("controller.vault.collect.sweep.Sweep.delete_doomed", _die)
        with pytest.raises(RuntimeError, match="died"):
            vault.collect(hours=3)
    copy = await vault.copy("old.db")
    await vault.back_up(shared)
    vault.collect(hours=3)
    assert await vault.sound()
    await vault.put_back(copy)
    vault.refused(Code.PRECONDITION, hours=3)
    assert not vault.rebuild()
    assert await vault.sound()
    for _ in range(3):
        vault.collect(hours=3)
    assert await vault.sound()


def _die(_sweep: object) -> AsyncIterator[int]:
    raise RuntimeError("died")


async def test_by_a_lost_index_nothing_is_collected(vault: Vault) -> None:
    """The tables are there and empty of packs and points, as in a copy from the first day."""
    copy = await vault.copy("first.db")
    for _ in range(3):
        await vault.back_up(vault.some())
    await vault.put_back(copy)
    vault.refused(Code.PRECONDITION, days=9)
    assert not vault.rebuild()
    assert await vault.sound()
    vault.collect(days=9)
    assert await vault.sound()


async def test_a_dead_pack_that_cannot_be_read_does_not_stop_the_others(vault: Vault) -> None:
    first = await vault.back_up(vault.some(12))
    dead = [key for key in vault.objects() if "/packs/" in key]
    await vault.back_up(vault.some())
    vault.forget(first)
    vault.collect(hours=3)
    store, bad = vault.world.store, dead[len(dead) // 2]
    read = store.get

    def get(key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key == bad:
            raise StoreFailedError("a bad sector")
        return read(key, offset, length)

    store.get = get  # type: ignore[method-assign]
    assert vault.collect(hours=3).swept.problems == 1
    assert [key for key in dead if key in vault.objects()] == [bad]
    store.get = read  # type: ignore[method-assign]
    vault.collect(hours=3)
    assert bad not in vault.objects()
    assert await vault.sound()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE packs SET number = number + 4096",
        "UPDATE chunks SET pack_number = pack_number + 4096",
    ],
)
async def test_a_pack_whose_chunks_are_in_no_pack_is_not_dropped(vault: Vault, change: str) -> None:
    await vault.back_up(vault.some())
    await vault.back_up(vault.some())
    copy = await vault.copy("sound.db")
    shutil.copy(copy, vault.home / "changed.db")
    with closing(sqlite3.connect(vault.home / "changed.db")) as raw, raw:
        raw.execute(change + " WHERE kind = 'data'" * change.startswith("UPDATE packs"))
    await vault.put_back(vault.home / "changed.db")
    before = vault.objects()
    refusals = []
    for _ in range(3):
        try:
            vault.collect(hours=50)
        except SteadError as error:
            refusals.append(str(error))
    assert refusals
    assert all("stead vault rebuild" in one for one in refusals)
    assert vault.objects() == before
    await vault.put_back(copy)
    assert not vault.rebuild()
    assert await vault.sound()


FIELDS = {
    "chunks": ("tenant_id", "id", "pack_number", "offset", "length", "kind"),
    "packs": ("number", "id", "tenant_id", "kind", "length", "created_at"),
    "points": ("id", "tenant_id", "machine_id", "received_at", "root_id", "object_key"),
    "forgotten_points": ("id", "tenant_id", "root_id", "object_key", "forgotten_at"),
    "generations": ("tenant_id", "number", "state", "began_at", "condemned_at"),
    "tombstones": ("tenant_id", "id", "generation"),
    "doomed_packs": ("tenant_id", "id", "due_at"),
    "vault_sessions": ("id", "tenant_id", "machine_id", "state", "lease_until"),
}


NAMED = [(table, column) for table, columns in FIELDS.items() for column in columns]


def flip(database: Path, chance: random.Random, table: str, column: str) -> bool:
    """Flip one bit of one value; whether there was one. Keys of other tables are not asked."""
    with closing(sqlite3.connect(database)) as raw:
        rows = raw.execute(f"SELECT {column} FROM {table}").fetchall()
        if not rows:
            return False
        (value,) = chance.choice(rows)
        broken = _flipped(value, chance)
        try:
            with raw:
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (broken, value))
        except sqlite3.IntegrityError:
            return False
    return True


def _flipped(value: object, chance: random.Random) -> object:
    match value:
        case int():
            return value ^ (1 << chance.choice([0, 0, 1, 2, 5, 11, 40]))
        case bytes() | str():
            broken = bytearray(value if isinstance(value, bytes) else value.encode())
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(
                8 if isinstance(value, bytes) else 5
            )
            return bytes(broken) if isinstance(value, bytes) else broken.decode()
        case _:
            return value


async def try_flips(vault: Vault, trials: int) -> None:
    """One bit of any row is wrong, the collector runs thrice; all is read from objects alone."""
    shared = vault.some()
    made = [await vault.back_up([*shared, *vault.some()]) for _ in range(3)]
    vault.forget(made[0])
    vault.collect(hours=3)
    vault.forget(made[1])
    await vault.back_up(vault.some(), commit=False)
    copy = await vault.copy("sound.db")
    objects = vault.home / "objects"
    shutil.copytree(objects, vault.home / "sound")
    sound_at, tally = vault.world.clock.at, Tally()
    refused = unplanned = 0
    for number in range(trials):
        # A stride that meets every field before it meets one again.
        table, column = NAMED[number * 2 % len(NAMED)]
        shutil.rmtree(objects)
        shutil.copytree(vault.home / "sound", objects)
        shutil.copy(copy, vault.home / "flipped.db")
        tally.tried += 1
        if not flip(vault.home / "flipped.db", vault.chance, table, column):
            continue
        tally.struck += 1
        vault.world.clock.at = sound_at
        await vault.put_back(vault.home / "flipped.db")
        for _ in range(3):
            try:
                vault.collect(hours=50)
            except SteadError:
                refused += 1
            except (ValueError, OverflowError):
                # A value that no row can have: said to be a fault of ours, and nothing done.
                unplanned += 1
        await vault.put_back(copy)
        vault.rebuild()
        for stored in vault.points.values():
            ids = [one for one, _ in stored]
            try:
                given = await vault.world.read(vault.machine, ids)
            except SteadError:
                tally.lost += 1
                print(f"lost after a flip in {table}.{column}")
                continue
            tally.wrong += given != [content for _, content in stored]
    print(f"flipped bits in rows: {tally}, refused {refused}, unplanned {unplanned}")
    assert (tally.lost, tally.wrong) == (0, 0)
    assert tally.struck > trials // 2


async def test_a_flipped_bit_in_a_row_deletes_nothing_that_is_needed(vault: Vault) -> None:
    await try_flips(vault, 20)


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_flipped_bits_in_any_row_delete_nothing_that_is_needed(vault: Vault) -> None:
    await try_flips(vault, len(NAMED) * 40)
