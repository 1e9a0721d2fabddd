"""A backup from begin to commit, and reading it back."""

from __future__ import annotations

import os

import pytest

from controller.vault.errors import ChunkMissingError
from protocol.errors import Code, SteadError
from tests.unit.controller_vault.world import World, an_id, data_chunk, tree_chunk


async def test_what_was_committed_is_listed_and_read_back(world: World) -> None:
    machine = await world.machine()
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    leaves = [data_chunk(os.urandom(5000)) for _ in range(20)]
    root, root_bytes = tree_chunk(b"root", [identity for identity, _ in leaves])
    sent = [[stored for _, stored in leaves], [root_bytes]]
    assert (await world.send(machine, begun, sent))[-1] == 21
    record = await world.point(machine, root, begun)
    done = await world.vault.commit(machine.identity, begun.session.id, begun.session.fence, record)
    [listed] = await world.vault.list_points(machine.identity, "", 0)
    assert (listed.id, listed.record) == (done.point, record)
    asked = [root, *(identity for identity, _ in leaves)]
    assert await world.read(machine, asked) == [root_bytes, *(stored for _, stored in leaves)]


async def test_a_flush_is_answered_also_when_nothing_was_sent(world: World) -> None:
    machine = await world.machine()
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    assert await world.send(machine, begun, [], flush=True) == [0]


async def test_a_tree_without_its_children_is_refused_and_what_came_before_is_kept(
    world: World,
) -> None:
    machine = await world.machine()
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    here, here_bytes = data_chunk(b"here")
    missing, _ = data_chunk(b"missing")
    _, tree = tree_chunk(b"tree", [here, missing])
    with pytest.raises(ChunkMissingError, match=missing.hex()):
        await world.send(machine, begun, [[here_bytes, tree]])
    await world.restart()
    assert await world.vault.has(machine.identity, begun.session.id, [here]) == [True]


async def test_a_session_of_another_machine_is_no_session(world: World) -> None:
    machine, other = await world.machine(), await world.machine()
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    with pytest.raises(SteadError) as refused:
        await world.vault.has(other.identity, begun.session.id, [])
    assert refused.value.code is Code.SESSION_LOST
