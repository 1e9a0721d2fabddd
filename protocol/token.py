"""Enrollment tokens: what an operator hands to a machine so that it is let in.

A token is one line: `stead1-`, then base 64 of a MessagePack array and 4 bytes of
SHA-256 over it, so that a cut or mistyped token is told from a wrong one. It holds
two secrets. The controller checks the first, of which it keeps a hash. The second it
never sees: it opens the bundle that the controller passes on unread, the tenant's
vault secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.errors import UNREADABLE, Code, SteadError
from protocol.ids import TenantId, TokenId, check_id

PREFIX = "stead1-"
SECRET_BYTES = 16
CHECK_BYTES = 4


class TokenError(SteadError):
    """A token that cannot be used, with the reason."""

    code = Code.TOKEN_INVALID


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A token with its secrets. It is never logged: its repr shows the id alone."""

    id: TokenId
    secret: bytes
    opening: bytes
    pin: bytes
    address: str

    def __repr__(self) -> str:
        return f"Token({self.id})"


def encode_token(token: Token) -> str:
    """The line to hand over."""
    body = msgspec.msgpack.encode([token.id, token.secret, token.opening, token.pin, token.address])
    whole = body + hashlib.sha256(body).digest()[:CHECK_BYTES]
    return PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")


def decode_token(text: str) -> Token:
    """Read a token; `TokenError` says whether it is none, or one that was cut short."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise TokenError(f"this is not an enrollment token: it does not begin with {PREFIX!r}")
    coded = text.removeprefix(PREFIX)
    damaged = TokenError(
        "the enrollment token is damaged or was cut short; copy the whole line that "
        "`stead token new` printed"
    )
    try:
        whole = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
    except (binascii.Error, ValueError):
        raise damaged from None
    body, check = whole[:-CHECK_BYTES], whole[-CHECK_BYTES:]
    if hashlib.sha256(body).digest()[:CHECK_BYTES] != check:
        raise damaged
    try:
        name, secret, opening, pin, address = msgspec.msgpack.decode(
            body, type=tuple[str, bytes, bytes, bytes, str]
        )
        token = Token(TokenId(check_id("tk", name)), secret, opening, pin, address)
    except (SteadError, *UNREADABLE):
        raise damaged from None
    if (len(secret), len(opening), len(pin)) != (SECRET_BYTES, SECRET_BYTES, 32):
        raise damaged
    return token


def hash_secret(secret: bytes) -> bytes:
    """What the controller keeps of a token's first secret: SHA-256, 32 bytes.

    The secret is 16 random bytes, so a slow hash would add nothing.
    """
    return hashlib.sha256(secret).digest()


def seal_bundle(opening: bytes, token: TokenId, tenant: TenantId, plain: bytes) -> bytes:
    """Seal what the controller must pass on unread, for machines of this tenant.

    AES-256-GCM under a key that HKDF makes of the token's second secret. That key
    seals one message in its life, so the nonce is zero.
    """
    about = _about(token, tenant)
    return AESGCM(_bundle_key(opening, token)).encrypt(bytes(12), plain, about)


def open_bundle(opening: bytes, token: TokenId, tenant: TenantId, sealed: bytes) -> bytes:
    """Open what `seal_bundle` sealed; `TokenError` when it is not for this token and tenant.

    The tenant is the controller's word: with a token of one tenant it makes nobody another's.
    """
    about = _about(token, tenant)
    try:
        return AESGCM(_bundle_key(opening, token)).decrypt(bytes(12), sealed, about)
    except InvalidTag:
        raise TokenError(
            "the controller sent a bundle that this token does not open, or named another "
            "tenant; make a new token"
        ) from None


def _about(token: TokenId, tenant: TenantId) -> bytes:
    return f"{token}\0{tenant}".encode()


def _bundle_key(opening: bytes, token: TokenId) -> bytes:
    kdf = HKDF(SHA256(), 32, salt=token.encode(), info=b"stead enrollment bundle v1")
    return kdf.derive(opening)
