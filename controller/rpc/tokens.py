"""`TokenService`."""

from __future__ import annotations

from datetime import timedelta

from controller import clock
from controller.authority import tokens
from controller.db.database import Database
from controller.rpc.interceptor import Context, operator_calling
from protocol.codec import to_ms
from protocol.v1 import operator_pb2 as pb
from protocol.v1.operator_pb2_grpc import TokenServiceServicer


class Tokens(TokenServiceServicer):
    """See `protocol/v1/operator.proto`."""

    def __init__(self, db: Database, enrollment_address: str) -> None:
        self._db = db
        self._enrollment_address = enrollment_address

    async def CreateToken(
        self,
        request: pb.CreateTokenRequest,
        context: Context,
    ) -> pb.CreateTokenResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        token = tokens.NewToken(
            id=request.token_id,
            tenant=request.tenant_id,
            secret_hash=request.secret_hash,
            bundle=request.sealed_bundle,
            uses=request.uses,
            lifetime=timedelta(seconds=request.ttl_s),
            tags=tuple(request.tags),
        )
        expires_at = await self._db.write(
            lambda c: tokens.create(c, operator, token, now=clock.now())
        )
        return pb.CreateTokenResponse(
            expires_at_ms=to_ms(expires_at), enrollment_address=self._enrollment_address
        )

    async def ListTokens(
        self,
        request: pb.ListTokensRequest,
        context: Context,
    ) -> pb.ListTokensResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        found = await self._db.read(lambda c: tokens.listed(c, operator, request.tenant_id))
        return pb.ListTokensResponse(
            tokens=[
                pb.Token(
                    token_id=token.id,
                    tenant_id=token.tenant,
                    uses=token.uses,
                    uses_left=token.uses_left,
                    expires_at_ms=to_ms(token.expires_at),
                    revoked_at_ms=to_ms(token.revoked_at),
                    created_by=token.created_by,
                )
                for token in found
            ]
        )

    async def RevokeToken(
        self,
        request: pb.RevokeTokenRequest,
        context: Context,
    ) -> pb.RevokeTokenResponse:
        """See `protocol/v1/operator.proto`."""
        operator = operator_calling()
        await self._db.write(
            lambda c: tokens.revoke(c, operator, request.token_id, now=clock.now())
        )
        return pb.RevokeTokenResponse()
