"""Keep the machine's certificate young.

Renewed at half of its life with jitter; one that has expired, since the machine lay
in a drawer, is renewed before anything else is tried: a connection with it would fail
in a way that looks like an outage.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.config import AgentHome
from agent.host.files import write_atomically
from agent.link.asking import ANSWER_S, ask, believed_chain
from agent.link.identity import Credentials
from protocol.codec import to_ms
from protocol.errors import Code, SteadError
from protocol.identity import renewal_bytes
from protocol.tls import chain_pem
from protocol.v1 import enrollment_pb2

JITTER = 0.1


def renewal_time(leaf: x509.Certificate, *, chance: float) -> datetime:
    """When to renew: half of the life over, and up to a tenth of it more by chance."""
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return leaf.not_valid_before_utc + life * (0.5 + JITTER * chance)


def is_expired(leaf: x509.Certificate, now: datetime) -> bool:
    """True when a handshake with this certificate cannot succeed now."""
    return now >= leaf.not_valid_after_utc


def check_clock(leaf: x509.Certificate, now: datetime) -> None:
    """Raise CLOCK_SKEW when the clock is before the certificate was made."""
    if now < leaf.not_valid_before_utc - timedelta(minutes=5):
        raise SteadError(
            f"the clock here says {now:%Y-%m-%d %H:%M}Z, which is before this machine's "
            f"certificate was made ({leaf.not_valid_before_utc:%Y-%m-%d %H:%M}Z); set the clock",
            code=Code.CLOCK_SKEW,
        )


def renew(credentials: Credentials, home: AgentHome, *, now: datetime) -> None:
    """Ask for a new certificate for the same key, and keep it.

    Raises what the controller refuses with (REVOKED, UNKNOWN_MACHINE, CLOCK_SKEW, EXPIRED),
    and UNAVAILABLE with the reason.
    """
    certificate = credentials.leaf.public_bytes(Encoding.DER)
    at = to_ms(now)
    message = enrollment_pb2.RenewRequest(
        certificate=certificate,
        requested_at_ms=at,
        signature=credentials.key.sign(renewal_bytes(certificate, at), ec.ECDSA(SHA256())),
    )
    address = credentials.settings.enrollment_address
    answer = ask(
        address,
        credentials.root,
        lambda stub: stub.Renew(message, timeout=ANSWER_S),
        distrusted=credentials.distrusted,
        proxy=credentials.settings.proxy_for(address),
        now=now,
    )
    identity = credentials.identity
    chain = believed_chain(
        answer.certificate_chain,
        credentials.key,
        credentials.root,
        now,
        expected=(identity.tenant, identity.machine),
        distrusted=credentials.distrusted,
    )
    write_atomically(home.chain, chain_pem(chain))
