"""Scrubbing beside a running vault: what is found, what is done, and what is left alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from controller.audit.log import entries
from controller.db.schema import damages, packs, points, scrubs
from controller.store.store import ObjectStore, StoreFailedError
from controller.vault.check import check
from controller.vault.hits import StoppedError
from controller.vault.keys import pack_key
from controller.vault.scrub.mend import finish
from controller.vault.scrub.pace import SPAN
from controller.vault.scrub.scrubber import BREAKER, Progress
from protocol.vault.chunk import ChunkDamagedError
from protocol.vault.pack import PackId
from tests.fakes.memory_store import MemoryStore
from tests.unit.controller_vault.test_repair import Kept, back_up, data_pack, flip, held
from tests.unit.controller_vault.world import World, data_chunk


@pytest.fixture
async def kept(world: World) -> Kept:
    made = Kept(await world.machine(), [data_chunk(os.urandom(20_000)) for _ in range(10)])
    await back_up(world, made, made.leaves)
    return made


async def scrub(world: World, kept: Kept, *, mend_all: bool = True) -> list[Progress]:
    tenant = kept.machine.identity.tenant
    return [one async for one in world.vault.scrub.ordered([tenant], mend_all=mend_all)]


def found(told: list[Progress]) -> list[str]:
    return [fault.reason for one in told for fault in one.faults]


async def events(world: World, kept: Kept) -> list[str]:
    log = await world.db.read(lambda c: entries(c, kept.machine.identity.tenant))
    return [entry.event for entry in log]


async def steadily(world: World, steps: int) -> None:
    """Steps of the steady scrub, as its thread makes them."""
    for _ in range(steps):
        await asyncio.to_thread(world.vault.scrub._step)


async def test_a_sound_vault_is_read_whole_and_left_as_it_is(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.glob("objects/*/*/*/*")}
    told = await scrub(world, kept)
    assert found(told) == []
    assert told[-1].is_done
    counts = told[-1].counts
    assert (counts.packs, counts.points, counts.damaged) == (2, 1, 0)
    assert (
        counts.bytes
        == told[-1].total_bytes
        == sum(len(content) for path, content in before.items() if "packs" in path.parts)
    )
    assert {path: path.read_bytes() for path in tmp_path.glob("objects/*/*/*/*")} == before
    (status,) = await world.vault.scrub.status([kept.machine.identity.tenant])
    assert [(one.kind, one.ended_at is None) for one in status.rounds] == [("ordered", False)]


async def test_damage_goes_to_the_quarantine_and_the_next_backup_heals_it(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    pack = data_pack(tmp_path)
    flip(pack, 30_000)
    told = await scrub(world, kept)
    assert told[-1].counts.damaged == 1
    assert not pack.exists()
    assert [p.name for p in tmp_path.glob("objects/.quarantine/*/packs/*/*.reason")]
    (status,) = await world.vault.scrub.status([kept.machine.identity.tenant])
    (damage,) = status.damages
    assert (damage.kept, damage.lost, damage.missing) == (9, 1, 1)
    machine = kept.machine.identity.machine
    assert damage.hit is not None
    assert list(damage.hit) == [machine]
    assert len(damage.hit[machine]) == 1
    assert (await events(world, kept))[-2:] == ["pack_put_aside", "restore_points_hit"]
    here = await held(world, kept)
    missing = [one for one, is_here in zip(kept.leaves, here, strict=True) if not is_here]
    assert len(missing) == 1
    world.clock.advance(minutes=1)
    assert await back_up(world, kept, missing) == ""
    (status,) = await world.vault.scrub.status([kept.machine.identity.tenant])
    assert [one.missing for one in status.damages] == [0]
    assert "damage_healed" in await events(world, kept)
    assert not check(world.store, world.db).faults
    assert await world.read(kept.machine, [i for i, _ in kept.leaves]) == [
        c for _, c in kept.leaves
    ]
    assert found(await scrub(world, kept)) == []


async def test_a_check_says_what_a_scrub_would_mend_and_changes_nothing(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    flip(data_pack(tmp_path), 30_000)
    before = await events(world, kept)
    told = await scrub(world, kept, mend_all=False)
    assert found(told) == ["its bytes are not those of its name"]
    assert all(await held(world, kept))
    assert await events(world, kept) == before
    assert await world.db.read(lambda c: c.scalars(select(scrubs.c.number)).all()) == []
    assert not list(tmp_path.glob("objects/.quarantine/*"))


@pytest.mark.parametrize("place", [-1, -40, 3])
async def test_a_pack_whose_chunks_are_whole_loses_none(
    world: World, kept: Kept, tmp_path: Path, place: int
) -> None:
    flip(data_pack(tmp_path), place)
    await scrub(world, kept)
    assert all(await held(world, kept))
    assert not check(world.store, world.db).faults
    (status,) = await world.vault.scrub.status([kept.machine.identity.tenant])
    assert [(one.lost, one.hit) for one in status.damages] == [(0, {})]


async def test_a_missing_pack_is_given_up_only_where_the_others_are_there(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    lost = data_pack(tmp_path)
    lost.unlink()
    await scrub(world, kept)
    assert await held(world, kept) == [False] * 10


async def test_a_store_that_is_not_mounted_is_no_damage(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    tenant = kept.machine.identity.tenant
    (tmp_path / "objects" / tenant).rename(tmp_path / "elsewhere")
    told = await scrub(world, kept)
    assert any("not be mounted" in reason for reason in found(told))
    assert (told[-1].counts.damaged, told[-1].counts.unreadable) == (0, 3)
    assert not (tmp_path / "objects" / tenant).exists()
    assert all(await held(world, kept))
    (status,) = await world.vault.scrub.status([tenant])
    assert status.damages == []
    assert len(status.unreadable) == 2


class Sick:
    """A store whose reads fail, end early, or differ, as it is told."""

    def __init__(self, store: ObjectStore) -> None:
        self.inner = store
        self.ill = ""
        self.reads = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        whole = self.inner.get(key, offset, length)
        self.reads += 1
        if "/packs/" not in key or not self.ill:
            return whole
        match self.ill:
            case "EIO":
                raise StoreFailedError("the disk failed: Input/output error")
            case "short":
                return whole[: len(whole) // 2]
            case _:
                return whole[:-1] + bytes([whole[-1] ^ (self.reads % 255 + 1)])


@pytest.fixture
def sick(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, Sick(MemoryStore()))  # type: ignore[arg-type]
    yield made
    made.db.close_now()


@pytest.mark.parametrize("illness", ["EIO", "short", "fickle"])
async def test_what_cannot_be_read_is_not_taken_for_damage(sick: World, illness: str) -> None:
    kept = Kept(await sick.machine(), [data_chunk(os.urandom(20_000)) for _ in range(10)])
    await back_up(sick, kept, kept.leaves)
    sick.store.ill = illness  # type: ignore[attr-defined]
    told = await scrub(sick, kept)
    assert (told[-1].counts.unreadable, told[-1].counts.damaged) == (2, 0)
    assert all(await held(sick, kept))
    assert (await events(sick, kept)).count("pack_unreadable") == 2
    (status,) = await sick.vault.scrub.status([kept.machine.identity.tenant])
    assert [one.tries for one in status.unreadable] == [1, 1]
    assert status.damages == []
    # Tried again by itself after a while, and well by then.
    sick.store.ill = ""  # type: ignore[attr-defined]
    sick.clock.advance(hours=7)
    await steadily(sick, 3)
    (status,) = await sick.vault.scrub.status([kept.machine.identity.tenant])
    assert status.unreadable == []


async def test_a_restart_goes_on_where_the_round_was(world: World, kept: Kept) -> None:
    for _ in range(3):
        await back_up(world, kept, [data_chunk(os.urandom(9_000))])
    world.vault.scrub._samples.clear()
    await steadily(world, 1)
    seen = await world.db.read(lambda c: c.execute(select(scrubs)).one())
    assert seen.packs == 1
    await world.restart()
    # Paced by bytes: nothing is due before the share of the span has gone by.
    await steadily(world, 3)
    assert (await world.db.read(lambda c: c.execute(select(scrubs.c.packs)).scalar_one())) == 1
    world.clock.advance(seconds=SPAN.total_seconds())
    for _ in range(20):
        await steadily(world, 1)
    rows = await world.db.read(lambda c: c.execute(select(scrubs).order_by("number")).all())
    everything = await world.db.read(lambda c: c.scalars(select(packs.c.id)).all())
    assert rows[0].packs == len(everything)
    assert rows[0].points == 4
    assert rows[0].ended_at - rows[0].began_at <= timedelta(days=30)


async def test_the_steady_scrub_stops_mending_when_everything_looks_damaged(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    for _ in range(BREAKER + 4):
        await back_up(world, kept, [data_chunk(os.urandom(9_000))])
    world.vault.scrub._samples.clear()
    for path in list(tmp_path.glob("objects/*/packs/*/*")):
        flip(path, 60)
        world.vault.scrub.suspect(kept.machine.identity.tenant, path.name)
    await steadily(world, BREAKER + 10)
    (status,) = await world.vault.scrub.status([kept.machine.identity.tenant])
    assert len(status.damages) == BREAKER
    assert any("may be the machine" in one.reason for one in status.unreadable)


async def test_what_somebody_was_given_wrong_is_looked_at_next(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    flip(data_pack(tmp_path), 30_000)
    with pytest.raises(ChunkDamagedError):
        await world.read(kept.machine, [one for one, _ in kept.leaves])
    await steadily(world, 2)
    assert await world.db.read(lambda c: c.scalars(select(damages.c.lost_chunks)).all()) == [1]


async def test_a_controller_that_died_while_it_mended_finishes_it(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    pack = data_pack(tmp_path)
    flip(pack, 30_000)
    broken = pack.read_bytes()
    await scrub(world, kept)
    # As if it had died after the rows and before the quarantine.
    pack.write_bytes(broken)

    def undo(c: object) -> None:
        c.execute(damages.update().values(is_aside=False, hit=None))  # type: ignore[attr-defined]

    await world.db.write(undo)
    await asyncio.to_thread(
        finish, world.store, world.db, world.vault.scrub._claims, world.clock.now()
    )
    assert not pack.exists()
    (status,) = await world.vault.scrub.status([kept.machine.identity.tenant])
    assert status.damages[0].hit


async def test_a_lost_record_comes_back_from_the_database(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    (path,) = tmp_path.glob("objects/*/points/*/*")
    sound = path.read_bytes()
    damages: list[Callable[[], None]] = [path.unlink, lambda: flip(path, len(sound) // 2)]
    for damage in damages:
        damage()
        assert found(await scrub(world, kept, mend_all=False))
        assert found(await scrub(world, kept)) == []
        assert path.read_bytes() == sound
    assert (await events(world, kept)).count("record_restored") == 2


async def test_rows_that_are_wrong_are_named(world: World, kept: Kept) -> None:
    place = await world.db.read(lambda c: c.scalars(select(packs.c.id)).first())
    assert place is not None
    key = pack_key(kept.machine.identity.tenant, PackId(place))
    from controller.db.schema import chunks

    await world.db.write(
        lambda c: c.execute(delete(chunks).where(chunks.c.id == kept.leaves[2][0])) and None
    )
    reasons = found(await scrub(world, kept, mend_all=False))
    assert any("rebuild" in reason for reason in reasons), (key, reasons)


async def test_losses_that_no_restore_point_needs_are_forgotten_in_time(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    flip(data_pack(tmp_path), 30_000)
    await scrub(world, kept)
    await world.db.write(lambda c: c.execute(delete(points)) and None)
    tenant = kept.machine.identity.tenant
    (status,) = await world.vault.scrub.status([tenant])
    assert status.damages[0].missing == 1
    world.clock.advance(days=3)
    (status,) = await world.vault.scrub.status([tenant])
    assert status.damages[0].missing == 0


async def test_who_stops_the_controller_does_not_wait_for_all_trees_to_be_read(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    flip(data_pack(tmp_path), 30_000)
    scrub = world.vault.scrub
    scrub._stopping.set()
    with pytest.raises(StoppedError):
        _ = [one async for one in scrub.ordered([kept.machine.identity.tenant], mend_all=True)]
    assert (await scrub.status([kept.machine.identity.tenant]))[0].damages[0].hit is None
    # The next controller does it.
    await world.restart()
    scrub = world.vault.scrub
    await asyncio.to_thread(finish, world.store, world.db, scrub._claims, world.clock.now())
    (status,) = await scrub.status([kept.machine.identity.tenant])
    assert status.damages[0].hit


async def test_a_scrub_that_is_nudged_while_it_is_stopped_stops(world: World, kept: Kept) -> None:
    scrub = world.vault.scrub
    for turns in range(8):
        resting = asyncio.create_task(scrub._rest(600.0))
        await asyncio.sleep(0)
        scrub._wake.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        if not resting.done():
            resting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await resting


async def test_a_restore_point_is_sampled_after_its_commit(world: World, kept: Kept) -> None:
    await steadily(world, 1)
    assert "restore_point_incomplete" not in await events(world, kept)
    # As if a collection had dropped what the restore point needs.
    from controller.db.schema import chunks

    await world.db.write(
        lambda c: c.execute(delete(chunks).where(chunks.c.id == kept.leaves[0][0])) and None
    )
    for _ in range(2):
        world.vault.scrub.sample(kept.machine.identity.tenant)
        await steadily(world, 2)
    assert (await events(world, kept)).count("restore_point_incomplete") == 1
    (status,) = await world.vault.scrub.status([kept.machine.identity.tenant])
    assert status.damages[0].missing == 1
    assert status.damages[0].hit
    assert await back_up(world, kept, kept.leaves[:1]) == ""


async def test_a_chunk_that_cannot_be_read_is_not_called_damaged(sick: World) -> None:
    kept = Kept(await sick.machine(), [data_chunk(os.urandom(20_000)) for _ in range(2)])
    await back_up(sick, kept, kept.leaves)
    sick.store.ill = "EIO"  # type: ignore[attr-defined]
    with pytest.raises(ChunkDamagedError, match="cannot be read"):
        await sick.read(kept.machine, [kept.leaves[0][0]])
    assert (await events(sick, kept))[-1] == "chunk_unreadable"


async def test_a_rate_makes_an_ordered_scrub_rest(world: World, kept: Kept) -> None:
    rested: list[float] = []

    async def sleep(seconds: float) -> None:
        rested.append(seconds)

    world.vault.scrub._sleep = sleep
    tenant = kept.machine.identity.tenant
    looking = world.vault.scrub.ordered([tenant], mend_all=False, bytes_per_s=100)
    told = [one async for one in looking]
    assert told[-1].is_done
    # As long as the rate says, less what the reading took itself.
    wanted = told[-1].counts.bytes / 100
    assert wanted * 0.9 < sum(rested) <= wanted
    rested.clear()
    await scrub(world, kept)
    assert not rested
