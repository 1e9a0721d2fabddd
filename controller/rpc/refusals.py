"""How our errors leave as gRPC statuses: one table, and one way to end a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc

from protocol.codec import refusal_to_pb
from protocol.errors import Code, SteadError

METADATA_KEY = "stead-refusal-bin"

STATUS: Mapping[Code, grpc.StatusCode] = {
    Code.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNKNOWN_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNKNOWN_ACTION: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Code.REVOKED: grpc.StatusCode.UNAUTHENTICATED,
    Code.RETIRED: grpc.StatusCode.UNAUTHENTICATED,
    Code.CLONE: grpc.StatusCode.UNAUTHENTICATED,
    Code.PARKED: grpc.StatusCode.UNAUTHENTICATED,
    Code.EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Code.DISTRUSTED: grpc.StatusCode.UNAUTHENTICATED,
    Code.UNKNOWN_MACHINE: grpc.StatusCode.UNAUTHENTICATED,
    Code.TOKEN_INVALID: grpc.StatusCode.UNAUTHENTICATED,
    Code.TOKEN_USED: grpc.StatusCode.UNAUTHENTICATED,
    Code.TOKEN_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Code.WRONG_PIN: grpc.StatusCode.UNAUTHENTICATED,
    Code.CLOCK_SKEW: grpc.StatusCode.FAILED_PRECONDITION,
    Code.UPGRADE_REQUIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.BAD_SIGNATURE: grpc.StatusCode.PERMISSION_DENIED,
    Code.WRONG_TENANT: grpc.StatusCode.PERMISSION_DENIED,
    Code.WRONG_TARGET: grpc.StatusCode.PERMISSION_DENIED,
    Code.STALE_REVOCATIONS: grpc.StatusCode.FAILED_PRECONDITION,
    Code.STALE_POLICY: grpc.StatusCode.FAILED_PRECONDITION,
    Code.NEEDS_APPROVAL: grpc.StatusCode.FAILED_PRECONDITION,
    Code.REPLAYED: grpc.StatusCode.ALREADY_EXISTS,
    Code.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Code.LOCKED: grpc.StatusCode.ABORTED,
    Code.CHUNK_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    Code.CHUNK_DAMAGED: grpc.StatusCode.DATA_LOSS,
    Code.PACK_DAMAGED: grpc.StatusCode.DATA_LOSS,
    Code.SESSION_LOST: grpc.StatusCode.ABORTED,
    Code.STORE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.DATABASE_DAMAGED: grpc.StatusCode.DATA_LOSS,
    Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.TIMED_OUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Code.LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: SteadError) -> NoReturn:
    """End a call with an error that its caller can read."""
    detail = refusal_to_pb(error).SerializeToString()
    await context.abort(STATUS[error.code], str(error), ((METADATA_KEY, detail),))
