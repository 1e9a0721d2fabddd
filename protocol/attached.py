"""Metadata that a client sends with every call on a channel, whatever kind of call it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc

Metadata = Sequence[tuple[str, str | bytes]]


class _Details(NamedTuple):
    """What gRPC wants of a call's details."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class Attached(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """`of` gives what a call of this method takes along, anew for each call."""

    def __init__(self, of: Callable[[str], Metadata]) -> None:
        self._of = of

    def _with(self, details: Any) -> Any:
        more = self._of(details.method)
        if not more:
            return details
        return _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), *more],
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """See `grpc.UnaryUnaryClientInterceptor`."""
        return continuation(self._with(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """See `grpc.UnaryStreamClientInterceptor`."""
        return continuation(self._with(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See `grpc.StreamUnaryClientInterceptor`."""
        return continuation(self._with(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See `grpc.StreamStreamClientInterceptor`."""
        return continuation(self._with(client_call_details), request_iterator)
