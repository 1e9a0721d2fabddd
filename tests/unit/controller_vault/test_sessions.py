from __future__ import annotations

import pytest

from controller.vault.errors import SessionLostError
from controller.vault.upload.losses import note_loss
from protocol.errors import Code, SteadError
from tests.fakes.memory_store import MemoryStore
from tests.unit.controller_vault.world import World, an_id, data_chunk, tree_chunk


async def test_asking_again_with_the_same_point_finds_the_same_session(world: World) -> None:
    machine, point = await world.machine(), an_id("rp")
    first = await world.vault.begin(machine.identity, point)
    await world.restart()
    again = await world.vault.begin(machine.identity, point)
    assert (again.session.id, again.session.fence) == (first.session.id, first.session.fence)


async def test_a_newer_session_ends_the_older_one_and_has_a_higher_fence(world: World) -> None:
    machine, point = await world.machine(), an_id("rp")
    old = await world.vault.begin(machine.identity, point)
    new = await world.vault.begin(machine.identity, an_id("rp"))
    assert new.session.fence > old.session.fence
    with pytest.raises(SessionLostError, match="newer backup"):
        await world.vault.has(machine.identity, old.session.id, [])
    with pytest.raises(SessionLostError, match="newer backup"):
        await world.vault.begin(machine.identity, point)
    await world.vault.has(machine.identity, new.session.id, [])


async def test_use_renews_the_lease(world: World) -> None:
    machine = await world.machine()
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    for _ in range(10):
        world.clock.advance(minutes=10)
        await world.vault.has(machine.identity, begun.session.id, [])
    await world.restart()
    world.clock.advance(minutes=10)
    await world.vault.has(machine.identity, begun.session.id, [])


async def test_a_session_that_ran_out_goes_on_under_a_new_fence(world: World) -> None:
    machine, point = await world.machine(), an_id("rp")
    begun = await world.vault.begin(machine.identity, point)
    root, stored = tree_chunk(b"root", [])
    await world.send(machine, begun, [[stored]])
    record = await world.point(machine, root, begun)
    world.clock.advance(minutes=16)
    for attempt in (
        world.vault.has(machine.identity, begun.session.id, [root]),
        world.send(machine, begun, [[stored]]),
        world.vault.commit(machine.identity, begun.session.id, begun.session.fence, record),
    ):
        with pytest.raises(SessionLostError, match="ran out"):
            await attempt
    again = await world.vault.begin(machine.identity, point)
    assert (again.session.id, again.session.fence) == (begun.session.id, begun.session.fence + 1)
    with pytest.raises(SessionLostError, match="fence"):
        await world.vault.commit(machine.identity, begun.session.id, begun.session.fence, record)
    assert await world.vault.has(machine.identity, again.session.id, [root]) == [True]
    await world.vault.commit(machine.identity, again.session.id, again.session.fence, record)


async def test_a_committed_point_does_not_begin_again(world: World) -> None:
    machine, point = await world.machine(), an_id("rp")
    begun = await world.vault.begin(machine.identity, point)
    root, stored = tree_chunk(b"root", [])
    await world.send(machine, begun, [[stored]])
    record = await world.point(machine, root, begun)
    await world.vault.commit(machine.identity, begun.session.id, begun.session.fence, record)
    with pytest.raises(SteadError) as refused:
        await world.vault.begin(machine.identity, point)
    assert refused.value.code is Code.ALREADY_EXISTS
    with pytest.raises(SessionLostError, match="committed"):
        await world.vault.has(machine.identity, begun.session.id, [])
    following = await world.vault.begin(machine.identity, an_id("rp"))
    assert following.session.parent == point


async def test_a_point_of_another_machine_does_not_begin(world: World) -> None:
    machine, other, point = await world.machine(), await world.machine(), an_id("rp")
    await world.vault.begin(machine.identity, point)
    with pytest.raises(SteadError) as refused:
        await world.vault.begin(other.identity, point)
    assert refused.value.code is Code.ALREADY_EXISTS


async def test_a_stream_ends_when_a_newer_session_begins(world: World) -> None:
    machine = await world.machine()
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    await world.vault.begin(machine.identity, an_id("rp"))
    with pytest.raises(SessionLostError):
        await world.send(machine, begun, [[data_chunk(b"late")[1]]])


async def test_no_session_begins_below_the_floor_of_free_space(world: World) -> None:
    machine = await world.machine()
    world.store = MemoryStore(capacity_bytes=1_000_000)
    world.options["floor_bytes"] = 1_000_001
    await world.restart()
    with pytest.raises(SteadError) as refused:
        await world.vault.begin(machine.identity, an_id("rp"))
    assert refused.value.code is Code.STORE_FULL
    world.store.capacity_bytes = 2_000_000
    await world.vault.begin(machine.identity, an_id("rp"))


async def test_what_is_no_points_id_begins_nothing(world: World) -> None:
    machine = await world.machine()
    with pytest.raises(SteadError) as refused:
        await world.vault.begin(machine.identity, "../../etc/passwd")
    assert refused.value.code is Code.INVALID


async def test_a_lease_is_over_at_its_end_and_not_after_it(world: World) -> None:
    machine = await world.machine()
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    world.clock.at = begun.session.lease_until
    with pytest.raises(SessionLostError, match="ran out"):
        await world.vault.has(machine.identity, begun.session.id, [])


async def test_a_backup_begun_before_a_loss_and_again_after_it_did_not_read_everything(
    world: World,
) -> None:
    machine, point = await world.machine(), an_id("rp")
    root, stored = tree_chunk(b"root", [])
    before = await world.vault.begin(machine.identity, an_id("rp"))
    await world.send(machine, before, [[stored]])
    record = await world.point(machine, root, before)
    await world.vault.commit(machine.identity, before.session.id, before.session.fence, record)
    old = await world.vault.begin(machine.identity, point)
    assert old.session.parent is not None
    world.clock.advance(minutes=1)
    at = world.vault.time()
    await world.db.write(lambda c: note_loss(c, machine.identity.tenant, at))
    world.clock.advance(minutes=20)
    again = await world.vault.begin(machine.identity, point)
    assert again.session.parent is None
    # It may be one that went on from the point before all the same, as it was told at first.
    record = await world.point(machine, root, again)
    await world.vault.commit(machine.identity, again.session.id, again.session.fence, record)
    after = await world.vault.begin(machine.identity, an_id("rp"))
    assert after.session.parent is None
