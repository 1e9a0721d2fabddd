"""Scrubbing, backups and a collection at once, while the disk flips bits.

Whatever meets whatever: nobody is given wrong bytes, what was not harmed stays readable,
and one more backup of each machine makes everything whole.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from controller.vault.check import check
from controller.vault.collect.condemn import Collected, Terms
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkId
from tests.unit.controller_vault.world import Member, World, a_point, an_id, data_chunk, tree_chunk

SEED = 20260701
TERMS = Terms(undo=timedelta(), grace=timedelta(), young=timedelta())
_LOSS = {Code.CHUNK_DAMAGED, Code.CHUNK_MISSING}


class Fleet:
    """Machines of one tenant whose files change a little from backup to backup."""

    def __init__(self, world: World, machines: list[Member], chance: random.Random) -> None:
        self.world = world
        self.machines = machines
        self.chance = chance
        self.stored: dict[ChunkId, bytes] = {}
        self.files = {one.identity.machine: [self._file() for _ in range(12)] for one in machines}

    def _file(self) -> tuple[ChunkId, bytes]:
        made = data_chunk(self.chance.randbytes(3_000))
        self.stored[made[0]] = made[1]
        return made

    async def back_up(self, machine: Member, *, change: bool = True) -> None:
        """One backup, as an agent makes it: what is not held is sent, children first."""
        files = self.files[machine.identity.machine]
        if change:
            files[self.chance.randrange(len(files))] = self._file()
        begun = await self.world.vault.begin(machine.identity, an_id("rp"))
        trees = [
            tree_chunk(self.chance.randbytes(20), [one for one, _ in files[at : at + 4]])
            for at in range(0, len(files), 4)
        ]
        root = tree_chunk(b"root", [one for one, _ in trees])
        self.stored.update([*trees, root])
        chunks = [*files, *trees, root]
        ids = [one for one, _ in chunks]
        held = await self.world.vault.has(machine.identity, begun.session.id, ids)
        wanted = [c for (_, c), is_held in zip(chunks, held, strict=True) if not is_held]
        await self.world.send(machine, begun, [wanted])
        record = machine.sign(a_point(machine, root[0], begun))
        session = begun.session
        await self.world.vault.commit(machine.identity, session.id, session.fence, record)

    async def read_wrong(self) -> int:
        """How many chunks are given with bytes that nobody stored."""
        wrong = 0
        for one, content in self.stored.items():
            try:
                (given,) = await self.world.read(self.machines[0], [one])
            except SteadError as error:
                if error.code not in _LOSS:
                    raise
                continue
            wrong += given != content
        return wrong


async def try_once(home: Path, seed: int, rounds: int) -> None:
    chance = random.Random(SEED + seed)
    world = World.make(home, pack_bytes=12_000, terms=TERMS)
    tenant = await world.tenant()
    fleet = Fleet(world, [await world.machine(tenant) for _ in range(3)], chance)
    try:
        for _ in range(rounds):
            works: list[Callable[[], Awaitable[object]]] = [
                *(partial(fleet.back_up, m) for m in fleet.machines),
                lambda: scrub(world, tenant),
                lambda: asyncio.to_thread(collect, world, tenant),
                lambda: asyncio.to_thread(flip_some, home, chance.randrange(3), chance),
            ]
            chance.shuffle(works)
            done = await asyncio.gather(*(work() for work in works), return_exceptions=True)
            for one in done:
                # A backup may be told that what it relied on was lost meanwhile: it begins again.
                if isinstance(one, BaseException) and not (
                    isinstance(one, SteadError)
                    and one.code in {Code.CHUNK_MISSING, Code.SESSION_LOST}
                ):
                    raise one
            world.clock.advance(minutes=7)
            assert await fleet.read_wrong() == 0
        await scrub(world, tenant)
        world.clock.advance(minutes=7)
        for machine in fleet.machines:
            await fleet.back_up(machine, change=False)
        assert await fleet.read_wrong() == 0
        for machine in fleet.machines:
            ids = [one for one, _ in fleet.files[machine.identity.machine]]
            given = await world.read(machine, ids)
            assert given == [content for _, content in fleet.files[machine.identity.machine]]
        reached = {f.chunk for f in check(world.store, world.db).faults}
        newest = {one for files in fleet.files.values() for one, _ in files}
        assert not reached & newest
    finally:
        await world.close()


async def scrub(world: World, tenant: str) -> None:
    async for _ in world.vault.scrub.ordered([tenant], mend_all=True):
        pass


def collect(world: World, tenant: str) -> None:
    try:
        for _ in world.vault.collector.run(tenant, Collected(), accept_losses=True):
            pass
    except SteadError as error:
        # It stops where it cannot see: then nothing was collected.
        if error.code not in {*_LOSS, Code.NOT_FOUND, Code.PRECONDITION}:
            raise


def flip_some(home: Path, count: int, chance: random.Random) -> None:
    packs = sorted(path for path in home.glob("objects/tn_*/packs/*/*") if path.is_file())
    for path in chance.sample(packs, min(count, len(packs))):
        try:
            content = bytearray(path.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            # In place: a file that was put aside meanwhile does not come back.
            with path.open("r+b") as file:
                file.write(content)
        except FileNotFoundError:
            continue


@pytest.mark.parametrize("seed", range(2))
async def test_scrub_backup_collection_and_damage_at_once(tmp_path: Path, seed: int) -> None:
    await try_once(tmp_path, seed, rounds=5)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_scrub_backup_collection_and_damage_at_once_for_long(tmp_path: Path) -> None:
    for seed in range(10):
        home = tmp_path / str(seed)
        home.mkdir()
        await try_once(home, 100 + seed, rounds=8)
