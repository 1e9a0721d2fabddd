"""What a failed call means: the controller's refusal, or the reason for an outage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from protocol.codec import MAX_REFUSAL, refusal_from_pb
from protocol.errors import Code, SteadError, UnavailableError
from protocol.shown import shown_text
from protocol.v1 import refusal_pb2

METADATA_KEY = "stead-refusal-bin"
_OUTAGE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


def refusal_of(
    status: grpc.StatusCode | None,
    details: str | None,
    trailing: Iterable[tuple[str, str | bytes]] | None,
) -> SteadError:
    """The error behind a call that ended with this status."""
    for key, value in trailing or ():
        if key == METADATA_KEY and isinstance(value, bytes):
            try:
                return refusal_from_pb(refusal_pb2.Refusal.FromString(value))
            except DecodeError:
                break
    words = shown_text(details or "no answer", longest=MAX_REFUSAL)
    if status is None or status in _OUTAGE:
        return UnavailableError(f"the controller cannot be reached: {words}")
    return SteadError(f"the controller answered {status.name}: {words}", code=Code.INTERNAL)


def error_of_call(error: grpc.RpcError) -> SteadError:
    """The error behind a call, in either of gRPC's two ways to make calls."""
    call: Any = error
    if not hasattr(call, "trailing_metadata"):
        return UnavailableError(f"the controller cannot be reached: {error}")
    trailing = call.trailing_metadata() or ()
    return refusal_of(call.code(), call.details(), [(str(key), value) for key, value in trailing])
