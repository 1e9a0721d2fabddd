"""Seal small secrets to a public key, so that only its holder can read them (HPKE).

RFC 9180, base mode, single shot. The first byte names the suite, so that later releases
can add one: 1 is X25519, 2 is P-256, both with HKDF-SHA256 and AES-256-GCM. Whoever
seals is not proved by this: what is sealed travels inside something signed.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from protocol.errors import Code, InvalidError, SteadError
from protocol.vault.keys import KEY_BYTES

PublicKey: TypeAlias = X25519PublicKey | EllipticCurvePublicKey
PrivateKey: TypeAlias = X25519PrivateKey | EllipticCurvePrivateKey

MAX_SEALED_BYTES: Final = 8 * 1024 * 1024
_X25519: Final = 1
_P256: Final = 2
_SUITES: Final = {
    _X25519: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    _P256: Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}


class SealedError(SteadError):
    """Something sealed cannot be opened with this key, or was sealed for another purpose."""

    code = Code.DENIED


def _suite(key: PublicKey | PrivateKey) -> int:
    if isinstance(key, X25519PublicKey | X25519PrivateKey):
        return _X25519
    if not isinstance(key.curve, SECP256R1):
        raise InvalidError("nothing can be sealed to a key of this curve; use X25519 or P-256")
    return _P256


def _info(suite: int, context: bytes) -> bytes:
    return b"stead vault v1 hpke\0" + bytes([suite]) + context


def binding(purpose: str, *names: str) -> bytes:
    """The context that ties something sealed to its purpose: NUL between the parts."""
    parts = [part.encode() for part in (purpose, *names)]
    if any(b"\0" in part for part in parts):
        raise InvalidError("a name that something is sealed for cannot hold NUL")
    return b"\0".join(parts)


def public_key(raw: bytes) -> X25519PublicKey:
    """An X25519 public key from its 32 bytes, such as `VaultSecret.recovery_public`."""
    if len(raw) != KEY_BYTES:
        raise InvalidError("an X25519 public key is 32 bytes")
    return X25519PublicKey.from_public_bytes(raw)


def seal_to(recipient: PublicKey | bytes, plain: bytes, context: bytes) -> bytes:
    """Seal `plain` to a key (32 raw bytes are X25519) for the purpose `context` names."""
    if isinstance(recipient, bytes):
        recipient = public_key(recipient)
    if len(plain) > MAX_SEALED_BYTES:
        raise InvalidError("more than 8 MiB cannot be sealed at once")
    suite = _suite(recipient)
    try:
        return bytes([suite]) + _SUITES[suite].encrypt(plain, recipient, _info(suite, context))
    except ValueError as error:
        raise InvalidError(f"nothing can be sealed to this key: {error}") from error


def open_sealed(recipient: PrivateKey, sealed: bytes, context: bytes) -> bytes:
    """Undo `seal_to`; `SealedError` when key, purpose or bytes are others."""
    suite = _suite(recipient)
    if not sealed or sealed[0] != suite or len(sealed) > MAX_SEALED_BYTES + 1024:
        raise SealedError("this was not sealed to a key of this kind, or by a later release")
    try:
        return _SUITES[suite].decrypt(sealed[1:], recipient, _info(suite, context))
    except (InvalidTag, ValueError):
        raise SealedError("this was sealed to another key or for another purpose") from None
