"""TLS as both sides speak it over gRPC: credentials, channel options, and finding out
why a handshake failed, which gRPC itself reports as a bare UNAVAILABLE.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Collection, Sequence
from datetime import datetime

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from protocol import proxy as proxies
from protocol.address import split_address
from protocol.errors import Code, SteadError, UnavailableError
from protocol.identity import (
    IdentityError,
    believe_authority,
    extensions_of,
    pin_of,
    read_certificate,
)
from protocol.proxy import Proxy

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""Above the largest stored chunk, so that a chunk always fits into a message."""

Options = Sequence[tuple[str, int | str]]

CHANNEL_OPTIONS: Options = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Both ends notice a half-open connection within 90 seconds.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    # Bulk data: larger windows than gRPC's guess keep an upload from waiting.
    ("grpc.http2.max_frame_size", 1024 * 1024),
)


def channel_options(proxy: Proxy | None = None) -> Options:
    """Options of a client's channel, which goes through a proxy or, without one, directly.

    gRPC's own reading of the environment is turned off: all connections go the same way.
    """
    way = ("grpc.enable_http_proxy", 0) if proxy is None else ("grpc.http_proxy", proxy.url)
    return (*CHANNEL_OPTIONS, way)


ROOT_EXTENSION = x509.ObjectIdentifier("2.25.329800735698586629295641978511506172918")
"""The extension in which the controller's own certificate carries the root (DER).

A machine with a token knows only the root's hash. It reads the root out of the
certificate that the controller shows, checks the hash, and only then makes a channel
that trusts this root: gRPC has no way to look at a certificate before trusting it.
The identifier is a UUID under the arc 2.25, which needs no registry.
"""


AUTHORITY_EXTENSION = x509.ObjectIdentifier("2.25.225180393663130612506540860493904747666")
"""The extension in which the controller's own certificate carries that of its issuer (DER)."""


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as unencrypted PKCS#8 PEM, for gRPC and for files of mode 0600."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def chain_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """Certificates as PEM, one after another."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def client_credentials(
    root: x509.Certificate,
    *,
    chain: Sequence[x509.Certificate] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
) -> grpc.ChannelCredentials:
    """Trust this root alone; show this chain, leaf first, when there is one."""
    return grpc.ssl_channel_credentials(
        root_certificates=chain_pem([root]),
        private_key=private_pem(key) if key is not None else None,
        certificate_chain=chain_pem(chain) if key is not None else None,
    )


def open_connection(
    address: str, proxy: Proxy | None = None, *, timeout: float = 10.0
) -> socket.socket:
    """A connection to `host:port`, through a proxy where there is one.

    `UnavailableError` says who did not answer, and what to look at.
    """
    there = split_address(address)
    try:
        if proxy is None:
            return socket.create_connection(there, timeout=timeout)
    except (OSError, UnicodeError) as error:
        # What is no name ends as UnicodeError, before anybody is asked for it.
        raise UnavailableError(
            f"cannot connect to {address}: {_words_of(error)}; is the controller "
            "running, and can this machine reach it?"
        ) from error
    try:
        connection = socket.create_connection((proxy.host, proxy.port), timeout=timeout)
    except (OSError, UnicodeError) as error:
        raise UnavailableError(
            f"cannot connect to the proxy {proxy}: {_words_of(error)}; is it running, "
            "and is its address right?"
        ) from error
    try:
        connection.sendall(proxies.connect_request(address, proxy))
        refused = proxies.refusal_of(_answer_of(connection, timeout), address, proxy)
        connection.settimeout(timeout)
    except OSError as error:
        connection.close()
        raise UnavailableError(
            f"the proxy {proxy} did not answer: {error.strerror or error}; is it one?"
        ) from error
    if refused is not None:
        connection.close()
        raise UnavailableError(refused)
    return connection


def _words_of(error: OSError | UnicodeError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _answer_of(connection: socket.socket, timeout: float) -> bytes:
    """A proxy's answer up to its empty line, byte by byte: what follows belongs to TLS.

    `timeout` is for all of it, however little comes at a time.
    """
    answer = bytearray()
    until = time.monotonic() + timeout
    while not proxies.is_whole(answer) and len(answer) < proxies.MAX_ANSWER_BYTES:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        if not (byte := connection.recv(1)):
            break
        answer += byte
    return bytes(answer)


def shown_certificate(
    address: str, *, proxy: Proxy | None = None, timeout: float = 10.0
) -> x509.Certificate:
    """The certificate that a server shows, believed by nobody yet.

    `UnavailableError` when there is no connection or no TLS at the other end.
    """
    host, _port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            open_connection(address, proxy, timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        raise UnavailableError(f"{address} does not speak TLS: {error.reason}") from error
    except (OSError, ValueError) as error:
        # ValueError: a name that can be asked for and that TLS does not take.
        raise UnavailableError(
            f"the connection to {address} broke off: {getattr(error, 'strerror', None) or error}"
        ) from error
    if der is None:
        raise UnavailableError(f"{address} shows no certificate")
    return read_certificate(der)


class NotAcceptedError(UnavailableError):
    """The right controller speaks TLS there, and yet no connection came of it."""


def find_root(
    address: str, pin: bytes, *, proxy: Proxy | None = None, timeout: float = 10.0
) -> x509.Certificate:
    """Fetch the root whose hash is `pin` from a controller.

    Raises `UnavailableError` when it cannot be reached and WRONG_PIN when the
    controller there belongs to another root.
    """
    leaf = shown_certificate(address, proxy=proxy, timeout=timeout)
    carried = _carried(leaf, ROOT_EXTENSION)
    if carried is None:
        raise SteadError(
            f"what answers at {address} is not a Stead controller", code=Code.WRONG_PIN
        )
    try:
        root = read_certificate(carried)
    except IdentityError:
        raise SteadError(
            f"the controller at {address} shows a root that cannot be read", code=Code.WRONG_PIN
        ) from None
    if pin_of(root) != pin:
        raise SteadError(
            f"the controller at {address} is not the one that made this token (its root has "
            "another hash); nothing secret was sent to it",
            code=Code.WRONG_PIN,
        )
    return root


def find_anchor(
    address: str,
    root: x509.Certificate,
    distrusted: Collection[bytes],
    *,
    now: datetime,
    proxy: Proxy | None = None,
    timeout: float = 10.0,
) -> x509.Certificate:
    """Whom a channel to this controller may trust: the root, unless it distrusts somebody.

    Then it is the controller's issuing authority alone. gRPC believes whatever chains to the
    root; so the controller's certificate is looked at first, and a channel that trusts just
    the authority that was found in it is closed to all others, whoever answers later. Raises
    DISTRUSTED, UNAVAILABLE, CLOCK_SKEW, and UNAUTHENTICATED for a controller that shows no
    authority.
    """
    if not distrusted:
        return root
    leaf = shown_certificate(address, proxy=proxy, timeout=timeout)
    der = _carried(leaf, AUTHORITY_EXTENSION)
    if der is None:
        raise IdentityError(
            f"the controller at {address} does not show its issuing authority; is it an older "
            "release?"
        )
    authority = read_certificate(der)
    try:
        believe_authority(authority, root=root, now=now, distrusted=distrusted)
    except IdentityError as error:
        if error.code is not Code.EXPIRED:
            raise
        raise SteadError(
            f"{error}, and the clock here says {now:%Y-%m-%d %H:%M}Z; set the clock",
            code=Code.CLOCK_SKEW,
        ) from error
    return authority


def _carried(leaf: x509.Certificate, extension: x509.ObjectIdentifier) -> bytes | None:
    """What a controller's certificate carries in an extension of ours, if anything."""
    try:
        found = extensions_of(leaf).get_extension_for_oid(extension).value
    except (x509.ExtensionNotFound, IdentityError):
        return None
    assert isinstance(found, x509.UnrecognizedExtension)
    return found.value


def explain_failure(
    address: str,
    root: x509.Certificate,
    *,
    now: datetime,
    proxy: Proxy | None = None,
    timeout: float = 10.0,
) -> SteadError:
    """Find out why a channel that trusts `root` came to nothing, and say it."""
    try:
        leaf = shown_certificate(address, proxy=proxy, timeout=timeout)
    except SteadError as error:
        return error
    if now >= leaf.not_valid_after_utc or now < leaf.not_valid_before_utc:
        return SteadError(
            f"the controller's certificate is good from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d} and the clock here says {now:%Y-%m-%d %H:%M}Z; "
            "set the clock, or restart the controller to have its certificate renewed",
            code=Code.CLOCK_SKEW,
        )
    if _carried(leaf, ROOT_EXTENSION) != root.public_bytes(Encoding.DER):
        return SteadError(
            f"what answers at {address} belongs to another installation", code=Code.WRONG_PIN
        )
    return NotAcceptedError(
        f"{address} answers but the connection was not accepted; does its certificate name "
        "this address, and is the certificate here still good?"
    )
