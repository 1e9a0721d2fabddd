"""Flipped bits, cuts, zeroed and swapped blocks in every kind of file: found, never served.

Each trial harms one file, or one row, in one way. It counts as found when a look at the
vault names that object, and as silently wrong when anybody is given bytes that were never
stored. The second count has to be 0. The counts are printed; `-m full` tries all of them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Connection, text, update

from controller.db.schema import chunks, packs
from controller.store.local import LocalStore
from controller.vault.check import check
from controller.vault.scrub.rebuild import rebuild
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId
from tests.unit.backup.machine import Machine
from tests.unit.backup.trees import picture
from tests.unit.controller_vault.world import Member, World, a_point, an_id, data_chunk, tree_chunk

SEED = 20260601
SAMPLED, ALL = 20, 800
_LOSS = {Code.CHUNK_DAMAGED, Code.CHUNK_MISSING, Code.PACK_DAMAGED, Code.UNAVAILABLE}
_BLOCK = 512


@dataclass
class Stored:
    """A vault of a few packs of each kind, and what its chunks hold."""

    world: World
    machine: Member
    content: dict[ChunkId, bytes]
    tally: Counter[str] = field(default_factory=Counter)


@pytest.fixture
async def stored(tmp_path: Path) -> AsyncIterator[Stored]:
    world = World.make(tmp_path, pack_bytes=48 * 1024)
    chance = random.Random(SEED)
    machine = await world.machine()
    made = Stored(world, machine, {})
    for number in range(3):
        begun = await world.vault.begin(machine.identity, an_id("rp"))
        leaves = [data_chunk(chance.randbytes(9_000)) for _ in range(12)]
        trees = [
            tree_chunk(chance.randbytes(4_000), [one for one, _ in leaves[at : at + 4]])
            for at in (0, 4, 8)
        ]
        root = tree_chunk(b"%d" % number, [one for one, _ in trees])
        await world.send(machine, begun, [[c for _, c in [*leaves, *trees, root]]])
        record = machine.sign(a_point(machine, root[0], begun))
        await world.vault.commit(machine.identity, begun.session.id, begun.session.fence, record)
        made.content.update([*leaves, *trees, root])
    yield made
    print(dict(made.tally))
    await world.close()


def flip(content: bytes, chance: random.Random) -> bytes:
    broken = bytearray(content)
    broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    return bytes(broken)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def grow(content: bytes, chance: random.Random) -> bytes:
    return content + chance.randbytes(chance.randint(1, 100))


def zero(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(max(1, len(content) - _BLOCK))
    return content[:at] + bytes(min(_BLOCK, len(content) - at)) + content[at + _BLOCK :]


def swap(content: bytes, chance: random.Random) -> bytes:
    """Two blocks in each other's place."""
    size = min(_BLOCK, len(content) // 2)
    one, two = sorted(chance.sample(range(len(content) // size), 2))
    broken = bytearray(content)
    first, second = broken[one * size : one * size + size], broken[two * size : two * size + size]
    broken[one * size : one * size + size] = second
    broken[two * size : two * size + size] = first
    return bytes(broken)


HARMS: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, grow, zero, swap)


async def look(stored: Stored) -> list[str]:
    """The object keys that a look at everything names."""
    tenant = stored.machine.identity.tenant
    told = [one async for one in stored.world.vault.scrub.ordered([tenant], mend_all=False)]
    return [fault.object_key for one in told for fault in one.faults]


async def served_wrong(stored: Stored) -> int:
    """How many chunks are given with other bytes than were stored."""
    wrong = 0
    for identity, content in stored.content.items():
        try:
            (given,) = await stored.world.read(stored.machine, [identity])
        except SteadError as error:
            if error.code not in _LOSS:
                raise
            stored.tally["refused"] += 1
            continue
        wrong += given != content
    return wrong


async def try_files(stored: Stored, tmp_path: Path, trials: int) -> None:
    chance = random.Random(SEED)
    files = sorted(path for path in tmp_path.glob("objects/tn_*/*/*/*") if path.is_file())
    assert {path.relative_to(tmp_path / "objects").parts[1] for path in files} == {
        "packs",
        "points",
    }
    for number in range(trials):
        path = files[number % len(files)]
        harm = HARMS[(number // len(files) + number) % len(HARMS)]
        sound = path.read_bytes()
        broken = harm(sound, chance)
        if broken == sound:
            continue
        path.write_bytes(broken)
        key = str(path.relative_to(tmp_path / "objects"))
        named = await look(stored)
        assert named == [key], (key, harm.__name__, named)
        stored.tally["found"] += 1
        assert await served_wrong(stored) == 0
        path.write_bytes(sound)
        stored.tally["tried"] += 1
    assert await look(stored) == []
    assert stored.tally["found"] == stored.tally["tried"] > trials * 0.9


async def test_harm_to_a_file_is_found_and_nobody_is_given_wrong_bytes(
    stored: Stored, tmp_path: Path
) -> None:
    await try_files(stored, tmp_path, SAMPLED)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_harm_to_any_file_is_found_and_nobody_is_given_wrong_bytes(
    stored: Stored, tmp_path: Path
) -> None:
    await try_files(stored, tmp_path, ALL)


async def test_harm_to_a_row_is_found_or_harmless_and_a_rebuild_mends_it(stored: Stored) -> None:
    """The index is a cache of the packs: no row that is wrong makes a wrong answer."""
    chance = random.Random(SEED)
    world = stored.world

    def harm_one(connection: Connection) -> None:
        ids = connection.scalars(chunks.select().with_only_columns(chunks.c.id)).all()
        one = chance.choice(list(ids))
        numbers = list(connection.scalars(packs.select().with_only_columns(packs.c.number)))
        change = chance.choice(
            [
                {"offset": chunks.c.offset + chance.choice([-7, 1, 32, 5000])},
                {"length": chunks.c.length + chance.choice([-1, 1, 400])},
                {"pack_number": chance.choice(numbers)},
                {"id": flip(one, chance)},
                {"kind": 1 - chunks.c.kind},
            ]
        )
        connection.execute(update(chunks).where(chunks.c.id == one).values(**change))

    for _ in range(6):
        before = await world.db.read(
            lambda c: [tuple(row) for row in c.execute(chunks.select()).all()]
        )
        await world.db.write(harm_one)
        after = await world.db.read(
            lambda c: [tuple(row) for row in c.execute(chunks.select()).all()]
        )
        stored.tally["tried"] += 1
        assert await served_wrong(stored) == 0
        named = await look(stored)
        assert named or before == after
        stored.tally["found"] += bool(named)
        await asyncio.to_thread(rebuild, world.store, world.db, now=world.clock.now())
        assert await look(stored) == []
        assert not check(world.store, world.db).faults
        assert await served_wrong(stored) == 0


async def test_a_lost_index_is_made_anew_from_the_objects_alone(stored: Stored) -> None:
    world = stored.world
    for table in ("chunks", "packs", "points"):
        await world.db.write(lambda c, name=table: c.execute(text(f"DELETE FROM {name}")) and None)  # type: ignore[misc]
    await asyncio.to_thread(rebuild, world.store, world.db, now=world.clock.now())
    assert await look(stored) == []
    assert await served_wrong(stored) == 0
    listed = await world.vault.list_points(stored.machine.identity, "", 0)
    assert len(listed) == 3


async def test_an_index_older_than_the_objects_learns_what_came_after_it(stored: Stored) -> None:
    """As after a copy of the database was put back."""
    world = stored.world

    def go_back(connection: Connection) -> None:
        latest = connection.scalar(text("SELECT max(number) FROM packs"))
        connection.execute(text(f"DELETE FROM chunks WHERE pack_number > {latest} / 2"))
        connection.execute(text(f"DELETE FROM packs WHERE number > {latest} / 2"))
        newest = "SELECT id FROM points ORDER BY received_at DESC LIMIT 1"
        connection.execute(text(f"DELETE FROM points WHERE id = ({newest})"))

    await world.db.write(go_back)
    assert await served_wrong(stored) == 0
    assert await look(stored) != []
    await asyncio.to_thread(rebuild, world.store, world.db, now=world.clock.now())
    assert await look(stored) == []
    assert await served_wrong(stored) == 0
    assert len(await world.vault.list_points(stored.machine.identity, "", 0)) == 3


class HostileStore(LocalStore):
    """Gives other bytes than were stored, in ways that an enemy would choose."""

    chance: random.Random | None = None

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        given = super().get(key, offset, length)
        if self.chance is None or not given:
            return given
        match self.chance.randrange(6):
            case 0:
                return flip(given, self.chance)
            case 1:
                return cut(given, self.chance)
            case 2:
                return bytes(len(given))
            case 3:
                others = [name for name, _ in self.list() if name != key]
                return super().get(self.chance.choice(others), offset, length)
            case 4:
                return given + self.chance.randbytes(40)
            case _:
                return given


async def test_a_hostile_store_is_never_believed(stored: Stored, tmp_path: Path) -> None:
    world = stored.world
    hostile = HostileStore.open(tmp_path / "objects")
    await world.vault.close()
    world.store = hostile
    world.start()
    hostile.chance = random.Random(SEED)
    wrong = 0
    for _ in range(3):
        wrong += await served_wrong(stored)
    assert wrong == 0
    assert stored.tally["refused"] > 30
    # Its answers differ from one time to the next: nothing is given up for their sake.
    tenant = stored.machine.identity.tenant
    told = [one async for one in world.vault.scrub.ordered([tenant], mend_all=True)]
    assert told[-1].is_done
    hostile.chance = None
    for _ in range(2):
        [one async for one in world.vault.scrub.ordered([tenant], mend_all=True)]
    assert await served_wrong(stored) == 0
    begun = await world.vault.begin(stored.machine.identity, an_id("rp"))
    held = await world.vault.has(stored.machine.identity, begun.session.id, list(stored.content))
    stored.tally["still_held"] = sum(held)
    assert not check(world.store, world.db).faults or not all(held)


@pytest.mark.parametrize("trial", range(4))
def test_harm_to_what_an_agent_remembers_makes_no_wrong_restore_point(
    tmp_path: Path, trial: int
) -> None:
    """Its state may be harmed in any way: the next restore point is right all the same."""
    machine = Machine(tmp_path)
    chance = random.Random(SEED + trial)
    for number in range(700):
        (machine.files / f"file{number:03}").write_bytes(chance.randbytes(200))
    machine.back_up()
    remembered = sorted(p for p in machine.memory.path.iterdir() if p.stat().st_size)
    path = remembered[trial % len(remembered)]
    path.write_bytes(chance.choice(HARMS)(path.read_bytes(), chance))
    (machine.files / "file007").write_bytes(b"changed")
    os.utime(machine.files / "file007", ns=(1, 1_700_000_000_000_000_000 + trial))
    report = machine.back_up()
    back, done = machine.restore(report.root)
    assert done.failed.count == 0
    assert picture(back) == picture(machine.files)
