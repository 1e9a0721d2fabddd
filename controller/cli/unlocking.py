"""Have the ssh-agent unlock a connection, for the calls that do more than look."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.rpc.authorisation import only_looks
from protocol.codec import encode_unlock, to_ms
from protocol.identity import key_hash
from protocol.unlock import GOOD_FOR, METADATA_KEY, Unlock, unlock_bytes

if TYPE_CHECKING:
    from controller.cli.connection import Connection


class _Details(NamedTuple):
    """What gRPC wants of a call's details."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class Unlocking(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends what the operator's key says of the connection's; asks for it once in a while."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._said = b""
        self._renew_at: datetime | None = None

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """See `grpc.UnaryUnaryClientInterceptor`."""
        return continuation(self._unlocked(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """See `grpc.UnaryStreamClientInterceptor`."""
        return continuation(self._unlocked(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See `grpc.StreamUnaryClientInterceptor`."""
        return continuation(self._unlocked(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See `grpc.StreamStreamClientInterceptor`."""
        return continuation(self._unlocked(client_call_details), request_iterator)

    def _unlocked(self, details: Any) -> Any:
        if only_looks(details.method):
            return details
        more = (METADATA_KEY, self._word())
        return _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), more],
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )

    def _word(self) -> bytes:
        now = clock.now()
        if self._renew_at is None or now >= self._renew_at:
            connection = self._connection
            until = to_ms(now + GOOD_FOR)
            data = unlock_bytes(key_hash(connection.key_here.public_key()), until)
            shown = connection.certificate.public_bytes(Encoding.DER)
            self._said = encode_unlock(Unlock(shown, until, connection.sign(data)))
            self._renew_at = now + GOOD_FOR / 2
        return self._said
