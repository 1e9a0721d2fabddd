from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from controller.store.store import Piece
from controller.vault.errors import LimitError
from controller.vault.upload.writer import Arrival
from controller.vault.vault import MAX_SENT
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ChunkDamagedError, chunk_id
from tests.fakes.memory_store import MemoryStore
from tests.unit.controller_vault.world import World, an_id, data_chunk, tree_chunk

PACK = 64 * 1024


class RecordingStore(MemoryStore):
    """Remembers the order of puts, and holds the first one back on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        made = super().put(key, pieces)
        self.order.append(key)
        return made


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[World]:
    world = World.make(tmp_path, RecordingStore(), pack_bytes=PACK, room_bytes=4 * PACK)
    yield world
    await world.close()


def packs(world: World) -> list[str]:
    assert isinstance(world.store, MemoryStore)
    return [key for key in world.store.objects if "/packs/" in key]


async def test_the_answers_grow_to_the_number_of_chunks(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    chunks = [data_chunk(os.urandom(10_000)) for _ in range(50)]
    answers = await small.send(machine, begun, [[stored] for _, stored in chunks])
    assert answers == sorted(set(answers))
    assert answers[-1] == 50
    assert len(packs(small)) >= 7
    assert await small.read(machine, [identity for identity, _ in chunks]) == [
        stored for _, stored in chunks
    ]


async def test_what_is_held_is_acknowledged_and_not_stored_again(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    _, stored = data_chunk(b"once")
    assert (await small.send(machine, begun, [[stored, stored], [stored]]))[-1] == 3
    assert (await small.send(machine, begun, [[stored]])) == [1]
    [pack] = packs(small)
    assert small.store.size(pack) < 2 * len(stored) + 200


async def test_two_streams_may_send_the_same_chunks_at_once(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    chunks = [data_chunk(os.urandom(10_000)) for _ in range(20)]
    messages = [[stored] for _, stored in chunks]
    answers = await asyncio.gather(
        small.send(machine, begun, messages), small.send(machine, begun, messages[::-1])
    )
    assert [answer[-1] for answer in answers] == [20, 20]
    assert await small.read(machine, [i for i, _ in chunks]) == [s for _, s in chunks]


async def test_a_pack_of_trees_is_stored_after_the_packs_of_their_children(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    messages = []
    for _ in range(30):
        identity, stored = data_chunk(os.urandom(9_000))
        messages.append([stored, tree_chunk(os.urandom(5_000), [identity])[1]])
    assert (await small.send(machine, begun, messages))[-1] == 60
    assert isinstance(small.store, RecordingStore)
    stored_so_far: set[bytes] = set()
    from protocol.vault.chunk import inspect
    from protocol.vault.pack import read_index

    for key in small.store.order:
        content = small.store.get(key)
        placed = read_index(content)
        stored_so_far.update(chunk.id for chunk in placed)
        for chunk in placed:
            header = inspect(content[chunk.offset : chunk.offset + chunk.length])
            assert stored_so_far.issuperset(header.children)


async def test_a_full_store_refuses_and_goes_on_when_there_is_room(small: World) -> None:
    machine = await small.machine()
    store = small.store
    assert isinstance(store, MemoryStore)
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    chunks = [data_chunk(os.urandom(10_000)) for _ in range(40)]
    store.capacity_bytes = 3 * PACK + 4096
    acknowledged = 0

    async def arrivals() -> AsyncIterator[Arrival]:
        for _, stored in chunks:
            yield Arrival([stored], session=begun.session.id)

    async def send() -> None:
        nonlocal acknowledged
        async for durable in small.vault.put(machine.identity, arrivals()):
            acknowledged = durable

    with pytest.raises(SteadError) as refused:
        await send()
    assert refused.value.code is Code.STORE_FULL
    ids = [identity for identity, _ in chunks]
    assert await small.read(machine, ids[:acknowledged]) == [s for _, s in chunks[:acknowledged]]
    store.capacity_bytes = None
    await send()
    assert acknowledged == 40
    assert await small.read(machine, ids) == [s for _, s in chunks]


async def test_what_came_before_a_stream_was_cut_is_kept(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    identity, stored = data_chunk(b"before")
    arrived, never = asyncio.Event(), asyncio.Event()

    async def arrivals() -> AsyncIterator[Arrival]:
        yield Arrival([stored], session=begun.session.id)
        arrived.set()
        await never.wait()

    async def consume() -> None:
        async for _ in small.vault.put(machine.identity, arrivals()):
            pass

    task = asyncio.create_task(consume())
    await arrived.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await small.restart()
    assert await small.read(machine, [identity]) == [stored]


async def test_many_streams_together_stay_within_the_room(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    room = small.vault._writer.room
    highest = 0

    async def one() -> int:
        nonlocal highest
        answers = 0

        async def arrivals() -> AsyncIterator[Arrival]:
            nonlocal highest
            for _ in range(10):
                yield Arrival([data_chunk(os.urandom(15_000))[1]], session=begun.session.id)
                highest = max(highest, room.used_bytes)

        async for durable in small.vault.put(machine.identity, arrivals()):
            answers = durable
        return answers

    assert await asyncio.gather(*(one() for _ in range(15))) == [10] * 15
    assert highest <= 4 * PACK + 15 * 16_000
    assert room.used_bytes == 0


async def test_a_stream_that_sends_nothing_makes_room_for_the_others(small: World) -> None:
    machine = await small.machine()
    small.options |= {"room_bytes": 50_000, "pack_bytes": 1_000_000}
    await small.restart()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    silent, go_on = asyncio.Event(), asyncio.Event()

    async def arrivals() -> AsyncIterator[Arrival]:
        yield Arrival([data_chunk(os.urandom(60_000))[1]], session=begun.session.id)
        silent.set()
        await go_on.wait()

    async def consume() -> list[int]:
        return [n async for n in small.vault.put(machine.identity, arrivals())]

    idle = asyncio.create_task(consume())
    await silent.wait()
    messages = [[data_chunk(os.urandom(9_000))[1]] for _ in range(20)]
    assert (await small.send(machine, begun, messages))[-1] == 20
    go_on.set()
    assert await idle == [1]


@pytest.mark.parametrize("failure", ["chunk", "store", "cut"])
async def test_no_room_is_lost_whatever_ends_a_stream(small: World, failure: str) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    messages = [[data_chunk(os.urandom(9_000))[1]] for _ in range(20)]
    if failure == "chunk":
        messages.append([b"not a chunk"])
    elif failure == "store":
        assert isinstance(small.store, MemoryStore)
        small.store.capacity_bytes = 2 * PACK + 4096
    else:
        machine = await small.machine()
    with pytest.raises(SteadError):
        await small.send(machine, begun, messages)
    room = small.vault._writer.room
    await small.restart()
    assert room.used_bytes == 0


async def test_bytes_that_are_no_chunk_are_refused(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    _, stored = data_chunk(b"x" * 100)
    for bad in (b"", stored[:-1], stored + b"\0", b"\0" + stored):
        with pytest.raises(ChunkDamagedError):
            await small.send(machine, begun, [[bad]])
        assert await small.vault.has(machine.identity, begun.session.id, [chunk_id(bad)]) == [False]


async def test_a_message_of_too_many_chunks_is_refused(small: World) -> None:
    machine = await small.machine()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    with pytest.raises(LimitError):
        await small.send(machine, begun, [[b""] * (MAX_SENT + 1)])


async def test_tiny_chunks_by_the_thousand_do_not_make_an_endless_transaction(
    small: World,
) -> None:
    machine = await small.machine()
    small.options["pack_bytes"] = 32 * 1024 * 1024
    await small.restart()
    begun = await small.vault.begin(machine.identity, an_id("rp"))
    message = [data_chunk(b"%d" % number)[1] for number in range(9_000)]
    assert (await small.send(machine, begun, [message]))[-1] == 9_000
    assert len(packs(small)) == 2
