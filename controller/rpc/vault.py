"""The vault's service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from controller.rpc.interceptor import caller, machine_calling
from controller.vault.upload.writer import Arrival
from controller.vault.vault import Vault
from protocol.codec import to_ms
from protocol.v1 import vault_pb2, vault_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class VaultServicer(vault_pb2_grpc.VaultServiceServicer):
    """See `protocol/v1/vault.proto`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def Begin(
        self, request: vault_pb2.BeginRequest, context: Context
    ) -> vault_pb2.BeginResponse:
        """See `Vault.begin`."""
        begun = await self._vault.begin(machine_calling(), request.point_id)
        return vault_pb2.BeginResponse(
            session_id=begun.session.id,
            fence=begun.session.fence,
            lease_s=int(self._vault.lease.total_seconds()),
            controller_time_ms=to_ms(self._vault.time()),
            parent_point_id=begun.session.parent or "",
            parent_record_hash=begun.parent_hash or b"",
        )

    async def Has(self, request: vault_pb2.HasRequest, context: Context) -> vault_pb2.HasResponse:
        """See `Vault.has`."""
        held = await self._vault.has(machine_calling(), request.session_id, request.chunk_ids)
        return vault_pb2.HasResponse(held=held)

    async def Put(
        self, request_iterator: AsyncIterator[vault_pb2.PutRequest], context: Context
    ) -> AsyncIterator[vault_pb2.PutResponse]:
        """See `Vault.put`."""
        upload = self._vault.put(machine_calling(), _arrivals(request_iterator))
        async with aclosing(upload):
            async for durable in upload:
                yield vault_pb2.PutResponse(durable=durable)

    async def Commit(
        self, request: vault_pb2.CommitRequest, context: Context
    ) -> vault_pb2.CommitResponse:
        """See `Vault.commit`."""
        done = await self._vault.commit(
            machine_calling(), request.session_id, request.fence, request.record
        )
        return vault_pb2.CommitResponse(point_id=done.point, received_at_ms=to_ms(done.received_at))

    async def Get(
        self, request: vault_pb2.GetRequest, context: Context
    ) -> AsyncIterator[vault_pb2.GetResponse]:
        """See `Vault.get`."""
        reading = self._vault.get(caller(), request.tenant_id, request.chunk_ids)
        async with aclosing(reading):
            async for chunks in reading:
                yield vault_pb2.GetResponse(chunks=chunks)

    async def ListPoints(
        self, request: vault_pb2.ListPointsRequest, context: Context
    ) -> vault_pb2.ListPointsResponse:
        """See `Vault.list_points`."""
        found = await self._vault.list_points(
            caller(), request.machine_id, request.limit, request.older_than
        )
        return vault_pb2.ListPointsResponse(
            points=[
                vault_pb2.PointRecord(
                    point_id=point.id,
                    machine_id=point.machine,
                    received_at_ms=to_ms(point.received_at),
                    record=point.record,
                )
                for point in found
            ]
        )


async def _arrivals(requests: AsyncIterator[vault_pb2.PutRequest]) -> AsyncIterator[Arrival]:
    async for request in requests:
        yield Arrival(list(request.chunks), flush=request.flush, session=request.session_id)
