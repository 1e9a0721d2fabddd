"""A private key at rest behind a passphrase: what the file has in it.

Pure: salt and nonce come in. The format is the usual one, PKCS #8 (RFC 5958) encrypted as
PBES2 (RFC 8018) with scrypt (RFC 7914) and AES-256 in CBC mode, so that a key can be
read without this program: `openssl pkey -in operator.key`. It is written here because the
library that reads it writes only PBKDF2 with 2,048 rounds, which a thief's machine tries
many thousand times a second.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from protocol.errors import Code, InvalidError, SteadError

SALT_BYTES = 16
NONCE_BYTES = 16
KEY_BYTES = 32
COST, BLOCK, LANES = 1 << 14, 8, 8
"""scrypt's N, r and p: 16 MiB at a time, eight times over. More memory at once than OpenSSL's
bound of 32 MiB allows would make a file that `openssl` cannot read."""

SHORTEST = 8
_LABEL = "ENCRYPTED PRIVATE KEY"
_BLOCK_BITS = 128
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


class WrongPassphraseError(SteadError):
    """A passphrase that does not open a key."""

    code = Code.UNAUTHENTICATED


def is_protected(data: bytes) -> bool:
    """Whether this is the file of a key behind a passphrase.

    >>> is_protected(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    True
    """
    return b"-----BEGIN %s-----" % _LABEL.encode() in data


def protect_key(
    key: ec.EllipticCurvePrivateKey, passphrase: bytes, *, salt: bytes, nonce: bytes
) -> bytes:
    """The key as a file that only this passphrase opens, in PEM.

    Raises INVALID for a passphrase of fewer than eight bytes.
    """
    if len(passphrase) < SHORTEST:
        raise InvalidError(
            f"a passphrase has at least {SHORTEST} characters; several words are best"
        )
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    derived = Scrypt(salt=salt, length=KEY_BYTES, n=COST, r=BLOCK, p=LANES).derive(passphrase)
    padder = PKCS7(_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES256(derived), modes.CBC(nonce)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    costs = b"".join(map(_integer, (COST, BLOCK, LANES, KEY_BYTES)))
    derivation = _sequence(_SCRYPT + _sequence(_octets(salt) + costs))
    cipher = _sequence(_AES_256_CBC + _octets(nonce))
    algorithm = _sequence(_PBES2 + _sequence(derivation + cipher))
    return _pem(_sequence(algorithm + _octets(sealed)))


def open_key(data: bytes, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
    """The key in such a file. Raises `WrongPassphraseError`, INVALID for what is no P-256 key."""
    try:
        key = load_pem_private_key(data, passphrase)
    except (ValueError, TypeError):
        # A wrong passphrase and a damaged file look the same to whoever has neither.
        raise WrongPassphraseError(
            "the passphrase does not open this key; if it is the right one, the file is damaged: "
            "restore it from a copy"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError("this is not a P-256 key")
    return key


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der).decode()
    lines = (text[start : start + 64] for start in range(0, len(text), 64))
    return "\n".join((f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", "")).encode()


def _sequence(content: bytes) -> bytes:
    return b"\x30" + _length(len(content)) + content


def _octets(content: bytes) -> bytes:
    return b"\x04" + _length(len(content)) + content


def _integer(value: int) -> bytes:
    # One more bit than it has, so that none is taken for a sign.
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + _length(len(content)) + content


def _length(count: int) -> bytes:
    if count < 128:
        return bytes((count,))
    digits = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes((128 | len(digits),)) + digits
