from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from controller.audit.log import INSTALLATION, entries
from controller.db.schema import chunks, packs, points, vault_sessions
from controller.vault.check import Report, check
from controller.vault.scrub.rebuild import rebuild
from protocol.vault.chunk import ChunkId
from tests.unit.controller_vault.world import (
    START,
    Member,
    World,
    a_point,
    an_id,
    data_chunk,
    tree_chunk,
)


@dataclass
class Stored:
    machine: Member
    ids: list[ChunkId]
    content: list[bytes]
    records: list[bytes]


@pytest.fixture
async def stored(world: World) -> Stored:
    """Two restore points of one machine."""
    machine = await world.machine()
    made = Stored(machine, [], [], [])
    for number in range(2):
        begun = await world.vault.begin(machine.identity, an_id("rp"))
        leaves = [data_chunk(os.urandom(20_000)) for _ in range(10)]
        root, root_bytes = tree_chunk(b"%d" % number, [identity for identity, _ in leaves])
        await world.send(machine, begun, [[c for _, c in leaves], [root_bytes]])
        point = a_point(machine, root, begun, started_at=START - timedelta(days=number))
        record = machine.sign(point)
        await world.vault.commit(machine.identity, begun.session.id, begun.session.fence, record)
        made.ids += [identity for identity, _ in leaves] + [root]
        made.content += [content for _, content in leaves] + [root_bytes]
        made.records.append(record)
    return made


def clean(report: Report) -> bool:
    return not report.faults and not report.unindexed


async def answers(world: World, stored: Stored) -> tuple[list[bytes], list[bytes], list[bool]]:
    machine = stored.machine.identity
    listed = await world.vault.list_points(machine, "", 0)
    begun = await world.vault.begin(machine, an_id("rp"))
    held = await world.vault.has(machine, begun.session.id, [*stored.ids, bytes(32)])
    return await world.read(stored.machine, stored.ids), [p.record for p in listed], held


async def test_what_was_just_stored_is_clean(world: World, stored: Stored) -> None:
    report = check(world.store, world.db)
    assert clean(report)
    assert (report.packs, report.chunks, report.points) == (4, 22, 2)


async def test_one_flipped_bit_anywhere_in_a_pack_is_found_and_named(
    world: World, stored: Stored, tmp_path: Path
) -> None:
    for pack in (path for path in tmp_path.glob("objects/*/packs/*/*") if path.is_file()):
        sound = pack.read_bytes()
        for place in {0, 40, len(sound) // 2, len(sound) - 100, len(sound) - 1}:
            broken = bytearray(sound)
            broken[place] ^= 16
            pack.write_bytes(broken)
            faults = check(world.store, world.db).faults
            assert {fault.object_key.rpartition("/")[2] for fault in faults} == {pack.name}
            pairs = zip(stored.ids, stored.content, strict=True)
            inside = [identity for identity, content in pairs if _at(sound, content, place)]
            assert {fault.chunk for fault in faults if fault.chunk} >= set(inside)
        pack.write_bytes(sound)
    assert clean(check(world.store, world.db))


def _at(pack: bytes, content: bytes, place: int) -> bool:
    start = pack.find(content)
    return start >= 0 and start <= place < start + len(content)


async def test_what_the_database_has_wrong_is_found_and_rebuilt(
    world: World, stored: Stored
) -> None:
    before = await answers(world, stored)
    one = chunks.c.id == stored.ids[3]
    damages = [
        update(chunks).where(one).values(offset=77),
        update(chunks).where(one).values(length=78),
        update(chunks).where(one).values(id=b"x" * 32),
        delete(chunks).where(one),
        update(points).values(record=stored.records[0] + b"\0").where(points.c.bytes == 0),
    ]
    for damage in damages:
        await world.db.write(lambda c, act=damage: c.execute(act) and None)  # type: ignore[misc]
        assert check(world.store, world.db).faults
        rebuild(world.store, world.db, now=START)
        assert clean(check(world.store, world.db))
        assert await answers(world, stored) == before


async def test_a_lost_index_is_rebuilt_with_the_same_answers(world: World, stored: Stored) -> None:
    before = await answers(world, stored)
    for table in (chunks, packs, points, vault_sessions):
        await world.db.write(lambda c, t=table: c.execute(delete(t)) and None)  # type: ignore[misc]
    await world.restart()
    assert len(check(world.store, world.db).unindexed) == 6
    done = rebuild(world.store, world.db, now=START)
    assert (done.packs, done.added_chunks, done.added_points, done.problems) == (4, 22, 2, [])
    assert clean(check(world.store, world.db))
    assert await answers(world, stored) == before
    again = rebuild(world.store, world.db, now=START)
    assert (again.added_chunks, again.dropped_chunks, again.added_points) == (0, 0, 0)
    log = await world.db.read(lambda c: entries(c, INSTALLATION))
    assert [entry.event for entry in log] == ["vault_rebuilt"] * 2


async def test_a_backup_goes_on_after_a_rebuild(world: World, stored: Stored) -> None:
    await world.db.write(lambda c: c.execute(delete(points)) and None)
    rebuild(world.store, world.db, now=START)
    begun = await world.vault.begin(stored.machine.identity, an_id("rp"))
    record = await world.point(stored.machine, stored.ids[-1], begun)
    await world.vault.commit(stored.machine.identity, begun.session.id, begun.session.fence, record)
    listed = await world.vault.list_points(stored.machine.identity, "", 0)
    assert [point.record for point in listed] == [record, *stored.records[::-1]]


async def test_a_lost_pack_is_named_with_the_trees_that_need_it(
    world: World, stored: Stored
) -> None:
    place = await world.db.read(
        lambda c: c.exec_driver_sql("SELECT id FROM packs WHERE kind = 'data'").scalars().all()[0]
    )
    world.store.delete(f"{stored.machine.identity.tenant}/packs/{place[:2]}/{place}")
    faults = check(world.store, world.db).faults
    assert [f.object_key.rpartition("/")[2] for f in faults if "missing" in f.reason] == [place]
    done = rebuild(world.store, world.db, now=START)
    assert done.dropped_chunks == 10
    faults = check(world.store, world.db).faults
    assert {fault.chunk for fault in faults} == {stored.ids[10]}
    assert len(faults) == 10


async def test_a_pack_without_its_index_gives_up_the_chunks_that_are_whole(
    world: World, stored: Stored, tmp_path: Path
) -> None:
    pack = max(
        (p for p in tmp_path.glob("objects/*/packs/*/*") if p.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(pack.read_bytes())
    content[-1] ^= 1
    content[25_000] ^= 1
    pack.write_bytes(content)
    for table in (chunks, packs):
        await world.db.write(lambda c, t=table: c.execute(delete(t)) and None)  # type: ignore[misc]
    done = rebuild(world.store, world.db, now=START)
    assert (done.chunks, len(done.problems)) == (21, 1)
    assert pack.name in done.problems[0]


async def test_objects_of_unknown_tenants_and_machines_are_named(
    world: World, stored: Stored
) -> None:
    stranger = an_id("tn")
    world.store.put(f"{stranger}/packs/ab/abcd", [b"x"])
    tenant = stored.machine.identity.tenant
    world.store.put(f"{tenant}/points/{an_id('mc')}/{an_id('rp')}", [stored.records[0]])
    done = rebuild(world.store, world.db, now=START)
    assert len(done.problems) == 2
    assert any(stranger in problem for problem in done.problems)
    assert (done.packs, done.points) == (4, 2)


async def test_a_rebuild_prefers_what_the_packs_say_to_a_row_that_hides_it(
    world: World, stored: Stored
) -> None:
    """A row that names the wrong pack hides a chunk that another pack holds."""

    def mislead(c: object) -> None:
        c.execute(  # type: ignore[attr-defined]
            update(chunks).where(chunks.c.id == stored.ids[0]).values(pack_number=3, offset=5)
        )

    await world.db.write(mislead)
    assert check(world.store, world.db).faults
    rebuild(world.store, world.db, now=START)
    assert clean(check(world.store, world.db))
    assert (await world.read(stored.machine, stored.ids[:1])) == stored.content[:1]
