"""Read why a call was refused, as agents and the command line do."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from controller.rpc.refusals import METADATA_KEY
from protocol.codec import refusal_from_pb
from protocol.errors import SteadError
from protocol.v1.refusal_pb2 import Refusal


def refusal_of(error: grpc.aio.AioRpcError) -> SteadError | None:
    """The refusal that a failed call carries; None when gRPC itself ended it."""
    for key, value in error.trailing_metadata() or ():
        if key == METADATA_KEY:
            assert isinstance(value, bytes)
            return refusal_from_pb(Refusal.FromString(value))
    return None


async def refused(call: Awaitable[Any]) -> SteadError:
    """Await a call that must be refused, and return the refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    refusal = refusal_of(caught.value)
    assert refusal is not None, caught.value
    return refusal
