from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from controller.audit.log import entries
from controller.store.store import Piece
from controller.vault.collect.condemn import Collected
from controller.vault.upload.sessions import Begun
from protocol.errors import Code, NotFoundError, SteadError
from protocol.vault.chunk import ChunkId
from protocol.vault.point import sign_point
from tests.unit.controller_vault.world import (
    START,
    Member,
    World,
    a_point,
    an_id,
    data_chunk,
    tree_chunk,
)


async def begin(world: World, machine: Member, content: bytes = b"root") -> tuple[Begun, ChunkId]:
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    root, stored = tree_chunk(content, [])
    await world.send(machine, begun, [[stored]])
    return begun, root


async def commit(world: World, machine: Member, begun: Begun, record: bytes) -> Any:
    return await world.vault.commit(machine.identity, begun.session.id, begun.session.fence, record)


async def refused(world: World, machine: Member, begun: Begun, record: bytes) -> Code:
    with pytest.raises(SteadError) as error:
        await commit(world, machine, begun, record)
    assert not await world.vault.list_points(machine.identity, "", 0)
    return error.value.code


async def test_the_same_bytes_get_the_same_answer_and_others_are_refused(world: World) -> None:
    machine = await world.machine()
    begun, root = await begin(world, machine)
    record = await world.point(machine, root, begun)
    first = await commit(world, machine, begun, record)
    await world.restart()
    world.clock.advance(days=30)
    assert await commit(world, machine, begun, record) == first
    # ECDSA draws a number: the same restore point signed again is other bytes.
    with pytest.raises(SteadError) as error:
        await commit(world, machine, begun, await world.point(machine, root, begun))
    assert error.value.code is Code.ALREADY_EXISTS
    assert len(await world.vault.list_points(machine.identity, "", 0)) == 1


def key_of(machine: Member, begun: Begun) -> str:
    point = begun.session.id.replace("vs_", "rp_")
    return f"{machine.identity.tenant}/points/{machine.identity.machine}/{point}"


async def cut_short(world: World, machine: Member) -> Begun:
    """A commit of which only the record is durable."""
    begun, root = await begin(world, machine)
    world.store.put(key_of(machine, begun), [await world.point(machine, root, begun)])
    return begun


async def points_of(world: World, machine: Member) -> list[str]:
    return [one.id for one in await world.vault.list_points(machine.identity, "", 0)]


async def test_a_record_that_only_the_store_has_is_committed_by_sending_it_again(
    world: World,
) -> None:
    machine = await world.machine()
    begun, root = await begin(world, machine)
    record = await world.point(machine, root, begun)
    world.store.put(key_of(machine, begun), [record])
    assert await refused(world, machine, begun, await world.point(machine, root, begun)) is (
        Code.ALREADY_EXISTS
    )
    await commit(world, machine, begun, record)


async def test_what_a_crash_cut_short_is_a_restore_point_once_the_machine_returns(
    world: World,
) -> None:
    machine = await world.machine()
    begun = await cut_short(world, machine)
    await world.restart()
    point = begun.session.id.replace("vs_", "rp_")
    with pytest.raises(SteadError) as error:
        await world.vault.begin(machine.identity, point)
    assert error.value.code is Code.ALREADY_EXISTS
    assert await points_of(world, machine) == [point]
    (entry,) = await world.db.read(lambda c: list(entries(c, machine.identity.tenant)))
    assert entry.event == "restore_point_committed"


async def test_a_new_backup_follows_what_a_crash_cut_short(world: World) -> None:
    machine = await world.machine()
    before = await cut_short(world, machine)
    begun, root = await begin(world, machine, b"another")
    await commit(world, machine, begun, await world.point(machine, root, begun))
    assert await points_of(world, machine) == [
        one.session.id.replace("vs_", "rp_") for one in (begun, before)
    ]


async def test_a_collection_takes_in_what_a_crash_cut_short(world: World) -> None:
    machine = await world.machine()
    begun = await cut_short(world, machine)
    for _ in world.vault.collector.run(machine.identity.tenant, Collected()):
        pass
    assert await points_of(world, machine) == [begun.session.id.replace("vs_", "rp_")]


async def test_nothing_else_is_taken_in(world: World) -> None:
    machine, other = await world.machine(), await world.machine()
    begun, root = await begin(world, machine)
    key = key_of(machine, begun)
    absent = ChunkId(bytes(32))
    for record in (
        b"no record",
        other.sign(a_point(machine, root, begun, machine=other.identity.machine)),
        machine.sign(a_point(machine, root, begun, previous=bytes(32))),
        machine.sign(a_point(machine, absent, begun)),
        machine.sign(a_point(machine, root, begun, id=an_id("rp"))),
    ):
        world.store.put(key, [record])
        await world.vault.begin(machine.identity, begun.session.id.replace("vs_", "rp_"))
        assert await points_of(world, machine) == []
        world.store.delete(key)


async def test_whoever_goes_away_while_it_is_written_cuts_no_commit_short(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await world.machine()
    begun, root = await begin(world, machine)
    record = await world.point(machine, root, begun)
    loop = asyncio.get_running_loop()
    is_put, may_go_on, put = asyncio.Event(), threading.Event(), world.store.put

    def slow_put(key: str, pieces: Iterable[Piece]) -> bool:
        done = put(key, pieces)
        loop.call_soon_threadsafe(is_put.set)
        may_go_on.wait()
        return done

    monkeypatch.setattr(world.store, "put", slow_put)
    caller = asyncio.create_task(commit(world, machine, begun, record))
    await is_put.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_go_on.set()
    monkeypatch.undo()
    # It waits for its turn behind the commit.
    with pytest.raises(SteadError) as error:
        await world.vault.begin(machine.identity, begun.session.id.replace("vs_", "rp_"))
    assert error.value.code is Code.ALREADY_EXISTS
    assert len(await points_of(world, machine)) == 1


async def test_only_the_machine_itself_signs(world: World) -> None:
    machine = await world.machine()
    neighbour = await world.machine(machine.identity.tenant)
    begun, root = await begin(world, machine)
    point = a_point(machine, root, begun)
    assert await refused(world, machine, begun, neighbour.sign(point)) is Code.BAD_SIGNATURE
    record = bytearray(machine.sign(point))
    record[-1] ^= 1
    assert await refused(world, machine, begun, bytes(record)) is Code.BAD_SIGNATURE
    assert await refused(world, machine, begun, b"\x00") is Code.INVALID


async def test_a_certificate_that_nobody_issued_is_refused(world: World) -> None:
    machine = await world.machine()
    begun, root = await begin(world, machine)
    point = a_point(machine, root, begun)
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "x")])
    for names in (
        x509.UnrecognizedExtension(x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"garbage"),
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(machine.identity.uri())]),
    ):
        forged = (
            x509.CertificateBuilder(name, name, machine.key.public_key(), 1)
            .not_valid_before(START)
            .not_valid_after(START + timedelta(days=1))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(machine.key, SHA256())
        )
        code = await refused(world, machine, begun, sign_point(point, machine.key, [forged]))
        assert code in (Code.BAD_SIGNATURE, Code.UNAUTHENTICATED)


async def test_the_record_is_of_the_sessions_point_machine_and_tenant(world: World) -> None:
    machine = await world.machine()
    begun, root = await begin(world, machine)
    for other in ({"id": an_id("rp")}, {"machine": an_id("mc")}, {"tenant": an_id("tn")}):
        record = machine.sign(a_point(machine, root, begun, **other))
        assert await refused(world, machine, begun, record) is Code.INVALID


async def test_the_record_follows_the_machines_newest(world: World) -> None:
    machine = await world.machine()
    begun, root = await begin(world, machine)
    record = machine.sign(a_point(machine, root, begun, previous=bytes(32)))
    assert await refused(world, machine, begun, record) is Code.PRECONDITION
    await commit(world, machine, begun, await world.point(machine, root, begun))
    second, root = await begin(world, machine, b"second")
    assert second.parent_hash is not None
    with pytest.raises(SteadError) as error:
        await commit(world, machine, second, machine.sign(a_point(machine, root, begun)))
    assert error.value.code is Code.INVALID
    await commit(world, machine, second, await world.point(machine, root, second))


async def test_the_root_is_held_and_is_a_tree(world: World) -> None:
    machine = await world.machine()
    begun, _ = await begin(world, machine)
    missing, _ = tree_chunk(b"never sent", [])
    record = await world.point(machine, missing, begun)
    assert await refused(world, machine, begun, record) is Code.CHUNK_MISSING
    data, stored = data_chunk(b"content")
    await world.send(machine, begun, [[stored]])
    record = await world.point(machine, data, begun)
    assert await refused(world, machine, begun, record) is Code.INVALID


async def test_a_root_of_another_tenant_is_missing(world: World) -> None:
    machine, stranger = await world.machine(), await world.machine()
    _, root = await begin(world, stranger)
    begun = await world.vault.begin(machine.identity, an_id("rp"))
    record = await world.point(machine, root, begun)
    assert await refused(world, machine, begun, record) is Code.CHUNK_MISSING


async def test_points_stay_in_the_order_of_their_chain_when_the_clock_steps_back(
    world: World,
) -> None:
    machine = await world.machine()
    made = []
    for number in range(3):
        begun, root = await begin(world, machine, b"%d" % number)
        done = await commit(world, machine, begun, await world.point(machine, root, begun))
        made.append(done)
        world.clock.at -= timedelta(minutes=1)
    listed = await world.vault.list_points(machine.identity, "", 0)
    assert [point.id for point in listed] == [done.point for done in reversed(made)]
    assert [p.id for p in await world.vault.list_points(machine.identity, "", 2)] == [
        made[2].point,
        made[1].point,
    ]
    older = await world.vault.list_points(machine.identity, "", 0, made[2].point)
    assert [point.id for point in older] == [made[1].point, made[0].point]
    assert await world.vault.list_points(machine.identity, "", 0, made[0].point) == []


async def test_a_page_is_not_continued_from_another_machines_point(world: World) -> None:
    machine, stranger = await world.machine(), await world.machine()
    begun, root = await begin(world, stranger)
    done = await commit(world, stranger, begun, await world.point(stranger, root, begun))
    with pytest.raises(NotFoundError):
        await world.vault.list_points(machine.identity, "", 0, done.point)


async def test_a_commit_is_in_the_audit_log(world: World) -> None:
    machine = await world.machine()
    begun, root = await begin(world, machine)
    await commit(world, machine, begun, await world.point(machine, root, begun))
    [entry] = await world.db.read(lambda c: entries(c, machine.identity.tenant))
    assert (entry.event, entry.actor) == (
        "restore_point_committed",
        f"machine/{machine.identity.machine}",
    )
    assert root.hex() in entry.body
