"""`OperatorService`."""

from __future__ import annotations

from controller import clock
from controller.authority import operators
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.fleet.scope import require_whole
from controller.rpc.interceptor import Context, operator_calling
from protocol.codec import to_ms
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import OperatorServiceServicer


class Operators(OperatorServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database, trust: Trust) -> None:
        self._db = db
        self._trust = trust

    async def AddOperator(
        self, request: pb.AddOperatorRequest, context: Context
    ) -> pb.AddOperatorResponse:
        """See `protocol/v1/operator.proto`."""
        administrator = require_whole(operator_calling())
        certificate = operators.read_shown(request.certificate)
        added = await self._db.write(
            lambda c: operators.record(
                c,
                certificate,
                root=self._trust.root,
                actor=f"operator/{administrator.name}",
                now=clock.now(),
            )
        )
        return pb.AddOperatorResponse(operator=_to_pb(added))

    async def ListOperators(
        self, request: pb.ListOperatorsRequest, context: Context
    ) -> pb.ListOperatorsResponse:
        """See `protocol/v1/operator.proto`."""
        caller = operator_calling()
        found = await self._db.read(lambda c: operators.listed(c, caller))
        return pb.ListOperatorsResponse(operators=map(_to_pb, found))

    async def RevokeOperator(
        self, request: pb.RevokeOperatorRequest, context: Context
    ) -> pb.RevokeOperatorResponse:
        """See `protocol/v1/operator.proto`."""
        administrator = require_whole(operator_calling())
        revoked = await self._db.write(
            lambda c: operators.revoke(
                c, request.name, actor=f"operator/{administrator.name}", now=clock.now()
            )
        )
        self._trust.revoke(revoked)
        return pb.RevokeOperatorResponse()


def _to_pb(operator: operators.Operator) -> pb.Operator:
    identity = operator.identity
    return pb.Operator(
        name=identity.name,
        role=identity.role.value,
        tenant_ids=sorted(identity.tenants or ()),
        not_after_ms=to_ms(operator.not_after),
        revoked_at_ms=to_ms(operator.revoked_at),
    )
