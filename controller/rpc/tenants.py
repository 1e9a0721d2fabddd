"""`TenantService`."""

from __future__ import annotations

import asyncio

from controller import clock
from controller.db.database import Database
from controller.fleet import tenant_keys as keys
from controller.fleet import tenants
from controller.fleet.scope import require_tenant
from controller.rpc.interceptor import Context, operator_calling
from controller.store.store import ObjectStore
from controller.vault.keys import link_key
from protocol.codec import to_ms
from protocol.ids import TenantId
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import TenantServiceServicer


class Tenants(TenantServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database, store: ObjectStore) -> None:
        self._db = db
        self._store = store

    async def AddTenant(
        self,
        request: pb.AddTenantRequest,
        context: Context,
    ) -> pb.AddTenantResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        added = await self._db.write(
            lambda c: tenants.add(
                c,
                operator,
                tenant_id=request.tenant_id,
                name=request.name,
                recovery_key=request.recovery_key,
                now=clock.now(),
            )
        )
        return pb.AddTenantResponse(tenant=_to_pb(added))

    async def ListTenants(
        self,
        request: pb.ListTenantsRequest,
        context: Context,
    ) -> pb.ListTenantsResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        found = await self._db.read(lambda c: tenants.listed(c, operator))
        return pb.ListTenantsResponse(tenants=map(_to_pb, found))

    async def RotateTenantKey(
        self, request: pb.RotateTenantKeyRequest, context: Context
    ) -> pb.RotateTenantKeyResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        await self._db.read(lambda c: require_tenant(c, operator, request.tenant_id))
        name = keys.check_link(request.present_key, request.recovery_key, request.link)
        # First, so that whoever finds nothing but the objects finds the way to the old key.
        await asyncio.to_thread(self._store.put, link_key(request.tenant_id, name), [request.link])
        key, revoked = await self._db.write(
            lambda c: keys.rotate(
                c,
                operator,
                request.tenant_id,
                present=request.present_key,
                public=request.recovery_key,
                link=request.link,
                now=clock.now(),
            )
        )
        return pb.RotateTenantKeyResponse(key=_key_to_pb(key), revoked_tokens=revoked)

    async def ListTenantKeys(
        self, request: pb.ListTenantKeysRequest, context: Context
    ) -> pb.ListTenantKeysResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        found = await self._db.read(lambda c: keys.listed(c, operator, request.tenant_id))
        return pb.ListTenantKeysResponse(keys=map(_key_to_pb, found))

    async def ShareTenantKey(
        self, request: pb.ShareTenantKeyRequest, context: Context
    ) -> pb.ShareTenantKeyResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        share = request.share
        shared = keys.Share(
            TenantId(share.tenant_id),
            share.operator,
            share.sealed,
            share.certificate,
            share.signature,
            clock.now(),
        )
        await self._db.write(lambda c: keys.share(c, operator, shared))
        return pb.ShareTenantKeyResponse()

    async def ListSharedKeys(
        self, request: pb.ListSharedKeysRequest, context: Context
    ) -> pb.ListSharedKeysResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        found = await self._db.read(lambda c: keys.shares_for(c, operator, request.tenant_id))
        return pb.ListSharedKeysResponse(shares=map(_share_to_pb, found))


def _key_to_pb(key: keys.RecordedKey) -> pb.TenantKey:
    return pb.TenantKey(
        number=key.number,
        recovery_key=key.public,
        link=key.link,
        created_at_ms=to_ms(key.created_at),
        created_by=key.created_by,
    )


def _share_to_pb(share: keys.Share) -> pb.SharedKey:
    return pb.SharedKey(
        tenant_id=share.tenant,
        operator=share.operator,
        sealed=share.sealed,
        certificate=share.certificate,
        signature=share.signature,
        shared_at_ms=to_ms(share.shared_at),
    )


def _to_pb(tenant: tenants.Tenant) -> pb.Tenant:
    return pb.Tenant(
        tenant_id=tenant.id,
        name=tenant.name,
        recovery_key=tenant.recovery_key,
        created_at_ms=to_ms(tenant.created_at),
        machines=tenant.machines,
    )
