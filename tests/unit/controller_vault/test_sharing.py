"""Uploads of several tenants at once: each gets its part of the controller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from threading import Semaphore

import pytest

from controller.store.store import Piece
from controller.vault.upload.room import Room
from controller.vault.upload.turns import Turns
from controller.vault.upload.writer import Arrival
from tests.fakes.memory_store import MemoryStore
from tests.unit.controller_vault.world import Member, World, an_id, data_chunk

PACK = 64 * 1024


class SlowStore(MemoryStore):
    """Takes a pack whenever it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = Semaphore(0)
        self.order: list[str] = []
        self.inside: list[str] = []

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        if "/packs/" in key:
            tenant = key.split("/", maxsplit=1)[0]
            self.inside.append(tenant)
            assert self.let.acquire(timeout=20)
            self.inside.remove(tenant)
            self.order.append(tenant)
        return super().put(key, pieces)


async def test_a_place_is_given_to_whose_turn_it_is() -> None:
    turns = Turns(1)
    order: list[str] = []

    async def work(tenant: str, machine: str) -> None:
        async with turns.turn(tenant, machine, 100):
            order.append(tenant)
            await asyncio.sleep(0)

    many = [asyncio.create_task(work("large", f"m{n}")) for n in range(6)]
    few = [asyncio.create_task(work("small", "m")) for _ in range(2)]
    await asyncio.gather(*many, *few)
    assert set(order[:3]) == set(order[2:4]) == {"large", "small"}
    assert turns.waiting == 0


async def test_who_gives_up_waiting_takes_no_place() -> None:
    turns = Turns(1)
    async with turns.turn("a", "m", 1):
        waiting = asyncio.create_task(turns.turn("b", "m", 1).__aenter__())
        await asyncio.sleep(0)
        assert turns.waiting == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert turns.waiting == 0
    async with asyncio.timeout(20), turns.turn("c", "m", 1):
        pass


async def test_a_tenant_that_fills_the_room_leaves_the_others_theirs() -> None:
    room = Room(1000)
    with room.entered("large"), room.entered("large"):
        room.take("large", 1200)
        assert room.is_short("large")
        with room.entered("small"):
            assert not room.is_short("small")
            room.take("small", 500)
            assert room.is_short("small")
            waiting = asyncio.create_task(room.wait("small"))
            await asyncio.sleep(0)
            assert not waiting.done()
            room.give("small", 1)
            async with asyncio.timeout(20):
                await waiting
            assert room.is_short("large")  # beyond its part
            room.take("small", 400)
            assert room.is_short("small")  # nobody goes beyond twice the limit
    room.give("large", 1200)
    room.give("small", 899)
    assert room.used_bytes == 0


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[World]:
    world = World.make(tmp_path, SlowStore(), pack_bytes=PACK, room_bytes=100 * PACK)
    yield world
    assert isinstance(world.store, SlowStore)
    world.store.let.release(1000)
    await world.close()


async def test_one_machine_is_not_kept_waiting_by_the_twelve_of_another_tenant(
    slow: World,
) -> None:
    store = slow.store
    assert isinstance(store, SlowStore)
    tenant = await slow.tenant()
    large = [await slow.machine(tenant) for _ in range(12)]
    small = await slow.machine()

    async def upload(machine: Member) -> None:
        begun = await slow.vault.begin(machine.identity, an_id("rp"))

        async def arrivals() -> AsyncIterator[Arrival]:
            for _ in range(64):
                yield Arrival([data_chunk(os.urandom(PACK // 2))[1]], session=begun.session.id)

        async for _ in slow.vault.put(machine.identity, arrivals()):
            pass

    many = [asyncio.create_task(upload(machine)) for machine in large]
    async with asyncio.timeout(20):
        while slow.vault._writer.turns_to_write.waiting < 4:
            await asyncio.sleep(0)
    ours = small.identity.tenant
    few = asyncio.create_task(upload(small))
    waiting = slow.vault._writer.turns_to_write
    async with asyncio.timeout(60):
        while not few.done():
            # A disk that is slower than everybody: it takes a pack once the one machine has
            # one to give.
            if ours in store.inside or waiting.waits(ours):
                written = len(store.order)
                store.let.release()
                while len(store.order) == written:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
    few.result()
    # It has at most two packs on their way and fills up its place with a moment's delay, so
    # half is more than it can take. One in thirteen would be its part by machines.
    assert store.order.count(ours) >= 31
    assert len(store.order) <= 7 * store.order.count(ours)
    store.let.release(1000)
    await asyncio.gather(*many)
