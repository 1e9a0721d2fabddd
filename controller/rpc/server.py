"""The two ports: one for those who show a certificate, one for those who want one.

The link port asks every caller for a certificate of this root and serves everything
but enrollment. The enrollment port asks for none and serves enrollment alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import timedelta

import grpc
from cryptography import x509

from controller import clock
from controller.authority.authority import ServingCertificate
from controller.authority.trust import Trust
from controller.rpc.interceptor import Gate, LiveCalls
from protocol.errors import Code, InvalidError, SteadError
from protocol.tls import CHANNEL_OPTIONS, chain_pem, private_pem

Add = Callable[[grpc.aio.Server], None]
"""Adds one service to a server."""

MAX_ENROLLMENTS = 512
"""Enrollments at a time; more are told RESOURCE_EXHAUSTED and come again."""

MAX_ENROLLMENTS_OF_ONE = 4
"""Enrollments at a time on one connection: further ones wait at their sender's."""

ENROLLMENT_PATIENCE = timedelta(seconds=15)
"""How long a request of somebody without a certificate may take to arrive."""

MAX_CALLS_OF_ONE = 64
"""Calls at a time on one connection to the link port."""

MAX_ENROLLMENT_BYTES = 64 * 1024
"""Who shows no certificate may send little."""

_PORT = re.compile(r"[0-9]{1,5}\Z")
_RECEIVED = "grpc.max_receive_message_length"

_SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    # A second controller on the port must fail, not take half of the calls.
    ("grpc.so_reuseport", 0),
    # Agents ping every 60 s without calls; by default gRPC would call that abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
)


class Server:
    """Both ports, started and stopped together."""

    def __init__(self, trust: Trust, certificate: ServingCertificate, calls: LiveCalls) -> None:
        self._calls = calls
        self._certificate = certificate
        self._root = trust.root
        self._gate = Gate(trust, calls)
        self._link = grpc.aio.server(
            interceptors=[self._gate],
            options=[
                *CHANNEL_OPTIONS,
                *_SERVER_OPTIONS,
                ("grpc.max_concurrent_streams", MAX_CALLS_OF_ONE),
            ],
        )
        self._enrollment = grpc.aio.server(
            interceptors=[Gate(None, calls, patience=ENROLLMENT_PATIENCE)],
            options=[
                *(option for option in CHANNEL_OPTIONS if option[0] != _RECEIVED),
                *_SERVER_OPTIONS,
                (_RECEIVED, MAX_ENROLLMENT_BYTES),
                # Nobody holds many places, or one for long, by sending half a request.
                ("grpc.max_concurrent_streams", MAX_ENROLLMENTS_OF_ONE),
                ("grpc.max_connection_age_ms", 20_000),
                ("grpc.max_connection_age_grace_ms", 10_000),
            ],
            maximum_concurrent_rpcs=MAX_ENROLLMENTS,
        )

    def bind(self, listen: str, enroll_listen: str) -> tuple[int, int]:
        """Take both ports, and return their numbers, which matter when 0 was asked for."""
        return (
            self._bind(self._link, listen, self._root),
            self._bind(self._enrollment, enroll_listen, None),
        )

    async def start(self, link: Sequence[Add], enrollment: Sequence[Add]) -> None:
        """Serve these services on the ports that were taken."""
        for add in link:
            add(self._link)
        for add in enrollment:
            add(self._enrollment)
        await self._link.start()
        await self._enrollment.start()

    async def stop(self, grace: timedelta) -> None:
        """Take no new call, cut the streams, let short calls end within `grace`."""
        self._calls.drain()
        seconds = grace.total_seconds()
        await asyncio.gather(self._enrollment.stop(seconds), self._link.stop(seconds))

    def _bind(self, server: grpc.aio.Server, listen: str, root: x509.Certificate | None) -> int:
        check_listen(listen)
        credentials = _credentials(self._certificate, root)
        try:
            return server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise SteadError(
                f"cannot listen on {listen}; is another controller running there, and is the "
                "address this machine's?",
                code=Code.PRECONDITION,
            ) from error


def check_listen(listen: str) -> None:
    """Raise INVALID unless this is "host:port"; port 0 means any that is free."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not _PORT.match(port) or int(port) > 65535:
        raise InvalidError(f"{listen[:200]!r} is not host:port; set it in config.toml or --listen")


def _credentials(
    certificate: ServingCertificate, root: x509.Certificate | None
) -> grpc.ServerCredentials:
    shown: x509.Certificate | None = None

    def configuration() -> grpc.ServerCertificateConfiguration:
        nonlocal shown
        key, chain = certificate.current(clock.now())
        shown = chain[0]
        return grpc.ssl_server_certificate_configuration(
            [(private_pem(key), chain_pem(chain))],
            root_certificates=chain_pem([root]) if root is not None else None,
        )

    def newer() -> grpc.ServerCertificateConfiguration | None:
        _, chain = certificate.current(clock.now())
        return None if chain[0] is shown else configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        newer,  # type: ignore[arg-type]  # None says: no change; the type stubs lack it
        require_client_authentication=root is not None,
    )
