"""The vault over real mutual TLS: what an agent and an operator see of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import pytest

from controller import clock
from controller.rpc.refusals import METADATA_KEY
from protocol.codec import refusal_from_pb
from protocol.errors import Code
from protocol.identity import Role
from protocol.ids import TenantId
from protocol.v1 import vault_pb2
from protocol.v1.refusal_pb2 import Refusal
from protocol.v1.vault_pb2_grpc import VaultServiceStub
from protocol.vault.chunk import ChunkId
from protocol.vault.point import RestorePoint, Totals, sign_point
from tests.integration.conftest import Enrolled, Installation
from tests.unit.controller_vault.world import data_chunk, tree_chunk

if TYPE_CHECKING:
    from protocol.v1.vault_pb2_grpc import VaultServiceAsyncStub


def code_of(error: grpc.aio.AioRpcError) -> Code:
    for key, value in error.trailing_metadata() or ():
        if key == METADATA_KEY:
            assert isinstance(value, bytes)
            return refusal_from_pb(Refusal.FromString(value)).code
    raise AssertionError(f"no refusal in {error!r}")


def stub(installation: Installation, machine: Enrolled) -> VaultServiceAsyncStub:
    return stub_on(installation.machine_channel(machine))


def stub_on(channel: grpc.aio.Channel) -> VaultServiceAsyncStub:
    return VaultServiceStub(channel)


async def send(
    vault: VaultServiceAsyncStub, session: str, *messages: list[bytes], flush: bool = True
) -> list[int]:
    async def requests() -> AsyncIterator[vault_pb2.PutRequest]:
        for message in messages:
            yield vault_pb2.PutRequest(session_id=session, chunks=message)
        if flush:
            yield vault_pb2.PutRequest(flush=True)

    return [answer.durable async for answer in vault.Put(requests())]


async def back_up(
    vault: VaultServiceAsyncStub, machine: Enrolled
) -> tuple[vault_pb2.CommitRequest, list[ChunkId], list[bytes]]:
    """A whole backup; the request that committed it, the chunks' ids and bytes."""
    begun = await vault.Begin(vault_pb2.BeginRequest(point_id=clock.new_id("rp")))
    leaves = [data_chunk(os.urandom(100_000)) for _ in range(30)]
    root, root_bytes = tree_chunk(os.urandom(50), [identity for identity, _ in leaves])
    stored = [*(bytes_ for _, bytes_ in leaves), root_bytes]
    assert (await send(vault, begun.session_id, stored[:10], stored[10:]))[-1] == 31
    point = RestorePoint(
        id=begun.session_id.replace("vs_", "rp_"),
        tenant=machine.tenant,
        machine=machine.id,
        started_at=datetime.now(UTC),
        rules=bytes(32),
        detector="walk",
        scope="tenant",
        root=root,
        sealed=(),
        totals=Totals(),
        previous=begun.parent_record_hash or None,
        agent="1",
    )
    request = vault_pb2.CommitRequest(
        session_id=begun.session_id,
        fence=begun.fence,
        record=sign_point(point, machine.key, machine.chain[:1]),
    )
    await vault.Commit(request)
    return request, [*(identity for identity, _ in leaves), root], stored


async def fetch(vault: VaultServiceAsyncStub, ids: list[ChunkId], tenant: str = "") -> list[bytes]:
    request = vault_pb2.GetRequest(tenant_id=tenant, chunk_ids=ids)
    return [chunk async for answer in vault.Get(request) for chunk in answer.chunks]


async def test_a_backup_is_committed_listed_and_read_back(installation: Installation) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    vault = stub(installation, machine)
    request, ids, stored = await back_up(vault, machine)
    second, _, _ = await back_up(vault, machine)
    listed = await vault.ListPoints(vault_pb2.ListPointsRequest())
    assert [point.record for point in listed.points] == [second.record, request.record]
    await installation.restart()
    vault = stub(installation, machine)
    assert await fetch(vault, ids) == stored
    again = await vault.Commit(request)
    assert again.received_at_ms == listed.points[1].received_at_ms


async def test_a_stream_that_breaks_off_keeps_what_was_sent(installation: Installation) -> None:
    machine = await installation.new_machine(await installation.add_tenant())
    vault = stub(installation, machine)
    begun = await vault.Begin(vault_pb2.BeginRequest(point_id=clock.new_id("rp")))
    identity, stored = data_chunk(os.urandom(1000))
    call = vault.Put()
    await call.write(vault_pb2.PutRequest(session_id=begun.session_id, chunks=[stored], flush=True))
    assert await call.read() == vault_pb2.PutResponse(durable=1)
    call.cancel()
    await installation.restart()
    vault = stub(installation, machine)
    asked = vault_pb2.HasRequest(session_id=begun.session_id, chunk_ids=[identity, bytes(32)])
    assert list((await vault.Has(asked)).held) == [True, False]


async def test_nobody_reads_another_tenants_vault(installation: Installation) -> None:
    acme, globex = await installation.add_tenant(), await installation.add_tenant("globex")
    machine = await installation.new_machine(acme)
    stranger = await installation.new_machine(globex)
    _, ids, stored = await back_up(stub(installation, machine), machine)

    async def refused(vault: VaultServiceAsyncStub, tenant: TenantId | str) -> Code:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await fetch(vault, ids[:1], tenant)
        return code_of(error.value)

    other = stub(installation, stranger)
    assert await refused(other, "") is Code.CHUNK_MISSING
    assert await refused(other, acme) is Code.WRONG_TENANT
    assert not (await other.ListPoints(vault_pb2.ListPointsRequest())).points
    ours = stub_on(installation.channel(*installation.operator("ann", Role.ADMIN, None)))
    assert await fetch(ours, ids, acme) == stored
    scope = frozenset({globex})
    theirs = stub_on(installation.channel(*installation.operator("bob", Role.ADMIN, scope)))
    assert await refused(theirs, acme) is Code.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await theirs.ListPoints(vault_pb2.ListPointsRequest(machine_id=machine.id))
    assert code_of(error.value) is Code.NOT_FOUND
