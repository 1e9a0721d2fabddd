from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.audit.log import INSTALLATION, entries
from controller.vault.check import check
from controller.vault.scrub.rebuild import rebuild
from controller.vault.scrub.repair import repair
from protocol.vault.chunk import ChunkId
from protocol.vault.pack import pack_id
from tests.unit.controller_vault.world import Member, World, a_point, an_id, data_chunk, tree_chunk


class Kept:
    """One restore point of ten chunks, and another machine's of the same chunks."""

    def __init__(self, machine: Member, leaves: list[tuple[ChunkId, bytes]]) -> None:
        self.machine = machine
        self.leaves = leaves


@pytest.fixture
async def kept(world: World) -> Kept:
    machine = await world.machine()
    made = Kept(machine, [data_chunk(os.urandom(20_000)) for _ in range(10)])
    await back_up(world, made, made.leaves)
    return made


async def back_up(world: World, kept: Kept, leaves: list[tuple[ChunkId, bytes]]) -> str:
    """Commit a point of the ten chunks, sending those leaves; the parent that was named."""
    identity = kept.machine.identity
    begun = await world.vault.begin(identity, an_id("rp"))
    root, stored = tree_chunk(b"root", [one for one, _ in kept.leaves])
    await world.send(kept.machine, begun, [[*(c for _, c in leaves), stored]])
    record = kept.machine.sign(a_point(kept.machine, root, begun))
    await world.vault.commit(identity, begun.session.id, begun.session.fence, record)
    return begun.session.parent or ""


def data_pack(home: Path) -> Path:
    return max(home.glob("objects/*/packs/*/*"), key=lambda path: path.stat().st_size)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


async def held(world: World, kept: Kept) -> list[bool]:
    begun = await world.vault.begin(kept.machine.identity, an_id("rp"))
    ids = [one for one, _ in kept.leaves]
    return await world.vault.has(kept.machine.identity, begun.session.id, ids)


async def test_a_damaged_chunk_is_let_go_and_healed_by_the_next_backup(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    pack = data_pack(tmp_path)
    flip(pack, 30_000)
    done = repair(world.store, world.db, now=world.clock.now())
    assert (done.packs_put_aside, done.kept_chunks, done.lost_chunks) == (1, 9, 1)
    assert not done.problems
    assert [path.name for path in tmp_path.glob("objects/.quarantine/*/packs/*/*.reason")]
    await world.restart()
    missing = [
        one for one, here in zip(kept.leaves, await held(world, kept), strict=True) if not here
    ]
    assert len(missing) == 1
    world.clock.advance(minutes=1)
    assert await back_up(world, kept, missing) == ""
    assert not check(world.store, world.db).faults
    assert await world.read(kept.machine, [i for i, _ in kept.leaves]) == [
        c for _, c in kept.leaves
    ]
    world.clock.advance(minutes=1)
    assert await back_up(world, kept, []) != ""
    assert not repair(world.store, world.db, now=world.clock.now()).packs_put_aside


@pytest.mark.parametrize("place", [-1, -40, 3])
async def test_a_pack_whose_chunks_are_whole_loses_none(
    world: World, kept: Kept, tmp_path: Path, place: int
) -> None:
    flip(data_pack(tmp_path), place)
    done = repair(world.store, world.db, now=world.clock.now())
    assert (done.packs_put_aside, done.lost_chunks, done.problems) == (1, 0, [])
    assert not check(world.store, world.db).faults
    ids = [one for one, _ in kept.leaves]
    assert await world.read(kept.machine, ids) == [c for _, c in kept.leaves]


async def test_a_pack_of_one_chunk_whose_index_is_damaged_keeps_it(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    pack = min(
        (p for p in tmp_path.glob("objects/*/packs/*/*")), key=lambda path: path.stat().st_size
    )
    flip(pack, -1)
    done = repair(world.store, world.db, now=world.clock.now())
    assert (done.kept_chunks, done.lost_chunks, done.problems) == (1, 0, [])
    assert pack_id(pack.read_bytes()) == pack.name
    assert not check(world.store, world.db).faults


async def test_swapped_packs_lose_nothing(world: World, kept: Kept, tmp_path: Path) -> None:
    other = [data_chunk(os.urandom(30_000)) for _ in range(3)]
    await back_up(world, kept, other)
    one, two = sorted(p for p in tmp_path.glob("objects/*/packs/*/*") if p.stat().st_size > 10_000)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    done = repair(world.store, world.db, now=world.clock.now())
    rebuild(world.store, world.db, now=world.clock.now())
    assert not done.problems
    assert not check(world.store, world.db).faults
    for identity, stored in [*kept.leaves, *other]:
        assert await world.read(kept.machine, [identity]) == [stored]


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_lost_record_comes_back_from_the_database(
    world: World, kept: Kept, tmp_path: Path, *, is_there: bool
) -> None:
    (path,) = tmp_path.glob("objects/*/points/*/*")
    sound = path.read_bytes()
    if is_there:
        flip(path, len(sound) // 2)
    else:
        path.unlink()
    done = repair(world.store, world.db, now=world.clock.now())
    assert (done.points_restored, done.problems) == (1, [])
    assert path.read_bytes() == sound
    assert not check(world.store, world.db).faults
    log = await world.db.read(lambda c: entries(c, INSTALLATION))
    assert [entry.event for entry in log] == ["vault_repaired"]


async def test_a_sound_vault_is_left_as_it_is(world: World, kept: Kept, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tmp_path.glob("objects/*/*/*/*")}
    done = repair(world.store, world.db, now=world.clock.now())
    assert (done.packs_put_aside, done.points_put_aside, done.problems) == (0, 0, [])
    assert {path: path.read_bytes() for path in tmp_path.glob("objects/*/*/*/*")} == before


async def test_after_a_rebuild_the_next_backup_reads_everything(world: World, kept: Kept) -> None:
    rebuild(world.store, world.db, now=world.clock.now())
    await world.restart()
    world.clock.advance(minutes=1)
    assert await back_up(world, kept, []) == ""
    world.clock.advance(minutes=1)
    assert await back_up(world, kept, []) != ""
