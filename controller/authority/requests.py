"""How an operator's key stays where it was made: a request goes to the root, a profile comes back.

Pure. Both are JSON for a file. A request proves by its signatures that whoever made it has
the keys; that it is the right person's is for the administrator to know, by `short_hash`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.identity import key_hash
from protocol.ids import check_name

DOMAIN: Final = b"stead operator request v1\0"
MAX_BYTES: Final = 64 * 1024
S = TypeVar("S", bound=msgspec.Struct)


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="request"):
    """What an operator asks for. Keys are DER, signatures over `DOMAIN` and the rest.

    `connect` is the key for connecting alone; empty where `key` is for that as well.
    """

    name: str
    key: bytes
    connect: bytes
    signature: bytes
    connect_signature: bytes


class Granted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="granted"):
    """What the root answers: certificates in PEM, and where the controller is."""

    name: str
    root: str
    certificate: str
    connect: str
    address: str


def make_request(
    name: str,
    key: ec.EllipticCurvePublicKey,
    connect: ec.EllipticCurvePrivateKey | None,
    sign: Callable[[bytes], bytes],
) -> bytes:
    """A request's file. `sign` signs with the key that it asks a certificate for."""
    check_name(name, what="operator's name")
    own = _der(key)
    other = b"" if connect is None else _der(connect.public_key())
    data = _signed(name, own, other)
    second = b"" if connect is None else connect.sign(data, ec.ECDSA(SHA256()))
    return _text(Request(name, own, other, sign(data), second))


def read_request(
    data: bytes,
) -> tuple[Request, ec.EllipticCurvePublicKey, ec.EllipticCurvePublicKey | None]:
    """A request and its keys.

    Raises INVALID for what is none, BAD_SIGNATURE for one whose maker has not got the keys.
    """
    request = _read(data, Request)
    check_name(request.name, what="operator's name")
    key = _public(request.key)
    connect = _public(request.connect) if request.connect else None
    signed = _signed(request.name, request.key, request.connect)
    _check(key, request.signature, signed)
    if connect is not None:
        _check(connect, request.connect_signature, signed)
        if connect == key:
            raise InvalidError("a key for connecting is not the operator's own")
    return request, key, connect


def make_granted(
    name: str,
    root: x509.Certificate,
    certificate: x509.Certificate,
    connect: x509.Certificate | None,
    address: str,
) -> bytes:
    """The file that answers a request."""
    return _text(
        Granted(
            name,
            _pem(root),
            _pem(certificate),
            "" if connect is None else _pem(connect),
            address,
        )
    )


def read_granted(data: bytes) -> Granted:
    """The answer to a request; INVALID for what is none."""
    return _read(data, Granted)


def short_hash(key: ec.EllipticCurvePublicKey) -> str:
    """What two people compare to know that they speak of one key."""
    digits = key_hash(key).hex()[:32]
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _signed(name: str, key: bytes, connect: bytes) -> bytes:
    parts = (name.encode(), key, connect)
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return DOMAIN + hashlib.sha256(framed).digest()


def _check(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    try:
        key.verify(signature, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise SteadError(
            "the request is not signed by the keys that it names; have it made anew",
            code=Code.BAD_SIGNATURE,
        ) from None


def _public(der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError("the request names a key that is no P-256 key")
    return key


def _der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _text(record: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def _read(data: bytes, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(data[: MAX_BYTES + 1], type=kind)
    except UNREADABLE as error:
        word = "request" if kind is Request else "answer to a request"
        raise InvalidError(f"this is no operator's {word}: {error}") from error
