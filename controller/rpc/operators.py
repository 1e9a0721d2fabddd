"""`OperatorService`."""

from __future__ import annotations

from sqlalchemy import Connection

from controller import clock
from controller.authority import operators, revocations
from controller.authority.trust import Trust
from controller.db.database import Database
from controller.fleet.scope import require_whole
from controller.jobs.signer import note_shown
from controller.rpc.interceptor import Context, operator_calling
from controller.rpc.revoking import Revoking
from protocol.codec import read_revocations, to_ms
from protocol.errors import InvalidError
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import OperatorServiceServicer


class Operators(OperatorServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database, trust: Trust, revoking: Revoking) -> None:
        self._db = db
        self._trust = trust
        self._revoking = revoking

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
        await self._note_renewed()
        found = await self._db.read(lambda c: operators.listed(c, caller))
        return pb.ListOperatorsResponse(operators=map(_to_pb, found))

    async def RevokeOperator(
        self, request: pb.RevokeOperatorRequest, context: Context
    ) -> pb.RevokeOperatorResponse:
        """See `protocol/v1/operator.proto`."""
        administrator = require_whole(operator_calling())
        if request.revocations:
            named = revocations.names_in(read_revocations(request.revocations, self._trust.root))
            if request.name not in named:
                raise InvalidError(f"the list does not name {request.name[:80]}")
        await self._revoking.revoke({request.name}, request.revocations, by=administrator.name)
        return pb.RevokeOperatorResponse()

    async def _note_renewed(self) -> None:
        """Keep the certificates that operators have shown since somebody last looked."""
        shown = dict(self._trust.shown)
        if not shown:
            return

        def act(connection: Connection) -> None:
            for name, certificate in shown.items():
                note_shown(connection, name, certificate)

        await self._db.write(act)
        for name, certificate in shown.items():
            if self._trust.shown.get(name) is certificate:
                del self._trust.shown[name]

    async def GetRevocations(
        self, request: pb.GetRevocationsRequest, context: Context
    ) -> pb.GetRevocationsResponse:
        """See `protocol/v1/operator.proto`."""
        return pb.GetRevocationsResponse(revocations=self._trust.revocations)


def _to_pb(operator: operators.Operator) -> pb.Operator:
    identity = operator.identity
    return pb.Operator(
        name=identity.name,
        role=identity.role.value,
        tenant_ids=sorted(identity.tenants or ()),
        not_after_ms=to_ms(operator.not_after),
        revoked_at_ms=to_ms(operator.revoked_at),
        certificate=operator.certificate,
    )
