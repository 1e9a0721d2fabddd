"""`PolicyService`: what the root ruled for a tenant comes in, and is read."""

from __future__ import annotations

from sqlalchemy import Connection

from controller import clock
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.fleet.scope import require_tenant
from controller.jobs import policies
from controller.jobs.feed import Feed
from controller.rpc.interceptor import Context, operator_calling
from protocol.codec import to_ms
from protocol.v1 import policy_pb2 as pb
from protocol.v1.policy_pb2_grpc import PolicyServiceServicer


class Policies(PolicyServiceServicer):
    """See `protocol/v1/policy.proto`."""

    def __init__(self, db: Database, trust: Trust, feed: Feed) -> None:
        self._db = db
        self._trust = trust
        self._feed = feed

    async def ApplyPolicy(
        self, request: pb.ApplyPolicyRequest, context: Context
    ) -> pb.ApplyPolicyResponse:
        """See `protocol/v1/policy.proto`."""
        operator, now = operator_calling(), clock.now()

        def act(connection: Connection) -> None:
            policies.take(
                connection,
                require_tenant(connection, operator, request.tenant_id),
                request.policy,
                root=self._trust.root,
                operator=operator.name,
                now=now,
            )

        await self._db.write(act)
        self._feed.wake(policies.topic(request.tenant_id))
        return pb.ApplyPolicyResponse()

    async def GetPolicy(
        self, request: pb.GetPolicyRequest, context: Context
    ) -> pb.GetPolicyResponse:
        """See `protocol/v1/policy.proto`."""
        operator = operator_calling()

        def look(connection: Connection) -> bytes:
            tenant = require_tenant(connection, operator, request.tenant_id)
            return policies.kept(connection, tenant)

        return pb.GetPolicyResponse(policy=await self._db.read(look))

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        """See `protocol/v1/policy.proto`."""
        operator = operator_calling()

        def look(connection: Connection) -> list[pb.PublishedPolicy]:
            tenant = require_tenant(connection, operator, request.tenant_id)
            return [
                pb.PublishedPolicy(
                    policy=one.data,
                    published_at_ms=to_ms(one.published_at),
                    published_by=one.published_by,
                )
                for one in policies.history(connection, tenant)
            ]

        return pb.ListPoliciesResponse(policies=await self._db.read(look))
