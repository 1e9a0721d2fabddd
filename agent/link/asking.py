"""Ask at the controller's enrollment port, which wants no certificate, and judge the answer.

What comes back may come from anybody who holds an issuing authority: a chain is believed
when it makes this key the machine that it is expected to be, and nothing else is an error
that has a name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.link.refusal import error_of_call
from protocol.errors import Code, SteadError
from protocol.identity import (
    IdentityError,
    MachineIdentity,
    authority_of,
    believe,
    key_hash,
    public_key_of,
    read_certificate,
)
from protocol.ids import is_of_key
from protocol.proxy import Proxy
from protocol.tls import channel_options, client_credentials, explain_failure, find_anchor
from protocol.v1.enrollment_pb2_grpc import EnrollmentServiceStub

ANSWER_S = 30.0
LONGEST_CHAIN = 4
MAX_CERTIFICATE_BYTES = 8 * 1024
R = TypeVar("R")


def ask(
    address: str,
    root: x509.Certificate,
    call: Callable[[EnrollmentServiceStub], R],
    *,
    distrusted: Collection[bytes],
    proxy: Proxy | None,
    now: datetime,
) -> R:
    """Make one call; raises what the controller refuses with, and UNAVAILABLE with the reason.

    `distrusted`: see `protocol.tls.find_anchor`, which raises, too.
    """
    anchor = find_anchor(address, root, distrusted, now=now, proxy=proxy)
    with grpc.secure_channel(
        address, client_credentials(anchor), options=channel_options(proxy)
    ) as channel:
        try:
            return call(EnrollmentServiceStub(channel))
        except grpc.RpcError as error:
            failure = error_of_call(error)
    if failure.code is Code.UNAVAILABLE:
        failure = explain_failure(address, root, now=now, proxy=proxy)
    raise failure


def signing_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PKCS#10 request for this key; who it is for is the controller's to say."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def believed_chain(
    ders: Iterable[bytes],
    key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    now: datetime,
    *,
    expected: tuple[str, str],
    distrusted: Collection[bytes],
) -> tuple[x509.Certificate, ...]:
    """A chain that makes this key the expected tenant's machine: the leaf and its authority.

    Nothing else of what came is kept: it would be shown with each connection, and a chain that
    is too long is taken by nobody. UNAUTHENTICATED for any other. A certificate that was made a
    moment ago and is not good now means that this machine's clock is wrong: CLOCK_SKEW.
    """
    try:
        chain = tuple(read_certificate(der) for der in _short(ders))
        ours = bool(chain) and public_key_of(chain[0]) == key.public_key()
    except IdentityError:
        raise _nonsense("a certificate that cannot be read") from None
    if not ours:
        raise _nonsense("a certificate for another key")
    leaf = chain[0]
    try:
        identity = believe(leaf, root=root, issuing=chain[1:], now=now, distrusted=distrusted)
    except IdentityError as error:
        if error.code is not Code.EXPIRED:
            raise _nonsense(str(error)) from error
        raise SteadError(
            f"the clock here says {now:%Y-%m-%d %H:%M}Z and the controller made a certificate "
            f"that is good from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M}Z to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M}Z; set the clock and try again",
            code=Code.CLOCK_SKEW,
        ) from error
    if not isinstance(identity, MachineIdentity) or (
        (identity.tenant, identity.machine) != expected
    ):
        raise _nonsense("a certificate for somebody else")
    return leaf, authority_of(leaf, chain[1:])


def check_named(machine: str, key: ec.EllipticCurvePrivateKey) -> None:
    """Raise UNAUTHENTICATED unless a new machine is named by this key, which was made here.

    The controller chooses the name. Whoever has it in his hands would else give a machine the
    name of another, or its own name with a journal in which nothing has happened, and orders
    that operators signed for that name would be executed here, or once more.
    """
    if not is_of_key(machine, key_hash(key.public_key())):
        raise _nonsense("a machine's name that is not of the key made here")


def _short(ders: Iterable[bytes]) -> Iterator[bytes]:
    for der in islice(ders, LONGEST_CHAIN):
        if len(der) > MAX_CERTIFICATE_BYTES:
            raise _nonsense("a certificate that is too large")
        yield der


def _nonsense(what: str) -> SteadError:
    return SteadError(
        f"the controller answered with {what}; look at its log, then try again",
        code=Code.UNAUTHENTICATED,
    )
