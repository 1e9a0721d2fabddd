"""A tenant's recovery keys on their way from one operator to another.

They are sealed to the key in the receiver's certificate, and signed by the sender, whom
the receiver sees: who carries them can neither read them nor put others in their place.
Whether the certificates are the installation's is `protocol.identity`'s affair. Pure.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256

from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import TenantId
from protocol.vault.epochs import TenantKeys, decode_tenant_keys, encode_tenant_keys
from protocol.vault.seal import binding, open_sealed, seal_to

MAX_SHARE_BYTES: Final = 64 * 1024
_SIGNED: Final = b"stead share of recovery keys v1\0"


def seal_share(
    keys: TenantKeys, receiver: x509.Certificate, *, tenant: TenantId, name: str
) -> bytes:
    """The keys, for the operator `name` who has this certificate."""
    return seal_to(_key_of(receiver), encode_tenant_keys(keys), _context(tenant, name))


def sign_share(
    sealed: bytes, key: EllipticCurvePrivateKey, *, tenant: TenantId, name: str
) -> bytes:
    """The sender's signature: over the tenant, the receiver's name and what was sealed."""
    return key.sign(share_bytes(sealed, tenant, name), ECDSA(SHA256()))


def share_bytes(sealed: bytes, tenant: TenantId, name: str) -> bytes:
    """What the sender signs."""
    return _SIGNED + _context(tenant, name) + b"\0" + sealed


def open_share(
    sealed: bytes,
    signature: bytes,
    sender: x509.Certificate,
    key: EllipticCurvePrivateKey,
    *,
    tenant: TenantId,
    name: str,
) -> TenantKeys:
    """The keys that `sender` sealed to `name`, whose key this is.

    Raises BAD_SIGNATURE when the sender did not send them, `SealedError` when they are for
    somebody else.
    """
    try:
        _key_of(sender).verify(signature, share_bytes(sealed, tenant, name), ECDSA(SHA256()))
    except InvalidSignature:
        raise SteadError(
            "these recovery keys were not signed by the operator who is said to have sent "
            "them; nothing was taken",
            code=Code.BAD_SIGNATURE,
        ) from None
    return decode_tenant_keys(open_sealed(key, sealed, _context(tenant, name)))


def _key_of(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise InvalidError("an operator's certificate is for a key of another kind")
    return key


def _context(tenant: TenantId, name: str) -> bytes:
    return binding("recovery keys", tenant, name)
