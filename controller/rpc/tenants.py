"""`TenantService`."""

from __future__ import annotations

from controller import clock
from controller.db.database import Database
from controller.fleet import tenants
from controller.rpc.interceptor import Context, operator_calling
from protocol.codec import to_ms
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import TenantServiceServicer


class Tenants(TenantServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database) -> None:
        self._db = db

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


def _to_pb(tenant: tenants.Tenant) -> pb.Tenant:
    return pb.Tenant(
        tenant_id=tenant.id,
        name=tenant.name,
        recovery_key=tenant.recovery_key,
        created_at_ms=to_ms(tenant.created_at),
        machines=tenant.machines,
    )
