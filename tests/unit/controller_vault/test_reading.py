from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.audit.log import entries
from controller.vault import vault
from controller.vault.errors import ChunkMissingError, LimitError
from controller.vault.index import Place
from controller.vault.keys import pack_key
from controller.vault.read.reads import WINDOW_BYTES, Range, plan_ranges, plan_windows
from controller.vault.vault import STREAMS
from protocol.errors import InvalidError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Kind
from protocol.vault.pack import PackId
from tests.unit.controller_vault.world import Member, World, an_id, data_chunk


async def stored(world: World, machine: Member, count: int) -> list[tuple[ChunkId, bytes]]:
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    chunks = [data_chunk(os.urandom(20_000)) for _ in range(count)]
    await world.send(machine, begun, [[content for _, content in chunks]])
    return chunks


def the_pack(home: Path) -> Path:
    [pack] = (path for path in home.glob("objects/*/packs/*/*") if path.is_file())
    return pack


async def test_answers_come_in_the_order_of_the_question(world: World) -> None:
    machine = await world.machine()
    chunks = await stored(world, machine, 30)
    asked = [chunks[number % 30] for number in (5, 3, 3, 29, 0, 17, 5)] + chunks[::-1]
    assert await world.read(machine, [i for i, _ in asked]) == [s for _, s in asked]


async def test_a_chunk_that_is_not_held_is_named_before_anything_is_sent(world: World) -> None:
    machine = await world.machine()
    chunks = await stored(world, machine, 2)
    missing = ChunkId(os.urandom(32))
    with pytest.raises(ChunkMissingError, match=missing.hex()):
        await world.read(machine, [chunks[0][0], missing])


async def test_a_damaged_chunk_is_named_and_the_others_can_be_had(
    world: World, tmp_path: Path
) -> None:
    machine = await world.machine()
    chunks = await stored(world, machine, 10)
    pack = the_pack(tmp_path)
    content = bytearray(pack.read_bytes())
    content[content.find(chunks[4][1]) + 999] ^= 4
    pack.write_bytes(content)
    got: list[bytes] = []

    async def read_all() -> None:
        async for message in world.vault.get(machine.identity, "", [i for i, _ in chunks]):
            got.extend(message)

    with pytest.raises(ChunkDamagedError, match=f"{chunks[4][0].hex()}.*{pack.name}"):
        await read_all()
    assert got == [s for _, s in chunks[:4]]
    rest = chunks[:4] + chunks[5:]
    assert await world.read(machine, [i for i, _ in rest]) == [s for _, s in rest]
    log = await world.db.read(lambda c: entries(c, machine.identity.tenant))
    [found] = [entry for entry in log if entry.event == "chunk_found_damaged"]
    assert chunks[4][0].hex() in found.body
    assert pack.name in found.body


async def test_a_lost_pack_is_named(world: World, tmp_path: Path) -> None:
    machine = await world.machine()
    [(identity, _)] = await stored(world, machine, 1)
    pack = the_pack(tmp_path)
    world.store.delete(pack_key(machine.identity.tenant, pack.name))
    with pytest.raises(ChunkDamagedError, match=f"{pack.name} is missing"):
        await world.read(machine, [identity])


async def test_questions_are_bounded_and_ids_have_32_bytes(world: World) -> None:
    machine = await world.machine()
    with pytest.raises(LimitError):
        await world.read(machine, [ChunkId(bytes(32))] * 4097)
    with pytest.raises(InvalidError):
        await world.read(machine, [ChunkId(bytes(31))])


async def test_a_caller_has_a_bounded_number_of_streams(world: World) -> None:
    machine = await world.machine()
    [(identity, content)] = await stored(world, machine, 1)
    streams = [world.vault.get(machine.identity, "", [identity]) for _ in range(STREAMS)]
    for stream in streams:
        assert await anext(stream) == [content]
    with pytest.raises(LimitError):
        await world.read(machine, [identity])
    await streams[0].aclose()
    assert await world.read(machine, [identity]) == [content]
    for stream in streams:
        await stream.aclose()


async def test_a_crowd_of_readers_gets_the_same_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault, "CROWD", 0)
    machine = await world.machine()
    chunks = await stored(world, machine, 100)
    assert await world.read(machine, [i for i, _ in chunks]) == [s for _, s in chunks]


def test_neighbours_are_read_together_and_strangers_are_not() -> None:
    one, two, far, other = (ChunkId(bytes([n]) * 32) for n in range(4))
    places = {
        one: Place(PackId("a"), 32, 1000, Kind.DATA),
        two: Place(PackId("a"), 1064, 1000, Kind.DATA),
        far: Place(PackId("a"), 10_000_000, 1000, Kind.DATA),
        other: Place(PackId("b"), 32, 1000, Kind.DATA),
    }
    assert plan_ranges([other, far, two, one, two], places) == [
        Range(PackId("a"), 32, 2032, (one, two)),
        Range(PackId("a"), 10_000_000, 1000, (far,)),
        Range(PackId("b"), 32, 1000, (other,)),
    ]


def test_windows_cover_the_question_in_order_and_are_bounded() -> None:
    asked = [ChunkId(bytes([n]) * 32) for n in range(20)]
    places = {
        chunk: Place(PackId("a"), n * 3_000_000, 3_000_000 - 32, Kind.DATA)
        for n, chunk in enumerate(asked)
    }
    windows = list(plan_windows(asked, places))
    assert [chunk for window in windows for chunk in window] == asked
    assert all(sum(places[c].length for c in window) <= WINDOW_BYTES for window in windows)
