"""Unlocking a connection: what the key of an operator says for the key of a connection.

Pure. Where an operator's key is in an ssh-agent, TLS is spoken with another key, which lies
in a file and whose certificate is for connecting alone. Who has that file can look and no
more: what changes anything needs a word by the operator's own key, made within minutes and
never written down. Orders need no such word, since each of them is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from protocol.errors import Code, SteadError
from protocol.identity import OperatorIdentity, believe, read_certificate
from protocol.order import CLOCK_TOLERANCE

DOMAIN: Final = b"stead unlock v1\0"
GOOD_FOR: Final = timedelta(minutes=10)
METADATA_KEY: Final = "stead-unlock-bin"


@dataclass(frozen=True, slots=True)
class Unlock:
    """Until when a connection's key may act, by whose certificate (DER), and the signature."""

    certificate: bytes
    until_ms: int
    signature: bytes


def unlock_bytes(connection_key: bytes, until_ms: int) -> bytes:
    """What is signed: a fixed word, the hash of the connection's key, the end."""
    return DOMAIN + connection_key + until_ms.to_bytes(8, "big", signed=True)


def check_unlock(
    unlock: Unlock,
    caller: OperatorIdentity,
    connection_key: bytes,
    *,
    root: x509.Certificate,
    now: datetime,
) -> None:
    """Raise UNAUTHENTICATED, EXPIRED or BAD_SIGNATURE unless the caller's own key unlocks this.

    `connection_key` is `protocol.identity.key_hash` of the key that TLS was spoken with.
    """
    leaf = read_certificate(unlock.certificate)
    identity = believe(leaf, root=root, issuing=(), now=now)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or identity != caller.whole():
        raise SteadError("this unlocks another operator's connection", code=Code.UNAUTHENTICATED)
    try:
        key.verify(
            unlock.signature, unlock_bytes(connection_key, unlock.until_ms), ec.ECDSA(SHA256())
        )
    except (InvalidSignature, OverflowError):
        raise SteadError(
            "what was to unlock this connection is not signed by the operator's key",
            code=Code.BAD_SIGNATURE,
        ) from None
    left = unlock.until_ms / 1000 - now.timestamp()
    if not 0 < left <= (GOOD_FOR + CLOCK_TOLERANCE).total_seconds():
        raise SteadError(
            f"the word that unlocks this connection was not made just now; the controller's "
            f"clock says {now:%Y-%m-%d %H:%M:%S}Z",
            code=Code.EXPIRED,
        )
