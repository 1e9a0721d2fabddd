"""What is said to an ssh-agent and what it answers. Pure: bytes in, records out.

The protocol is draft-ietf-sshm-ssh-agent; keys and signatures of the kind
`ecdsa-sha2-nistp256` are RFC 5656's. Messages are read as from a stranger: lengths are
checked before anything is believed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.errors import InvalidError

KIND: Final = b"ecdsa-sha2-nistp256"
FIDO_KIND: Final = b"sk-ecdsa-sha2-nistp256@openssh.com"
CURVE: Final = b"nistp256"
MAX_MESSAGE_BYTES: Final = 256 * 1024
_LENGTH: Final = 4
_INTEGER_BYTES: Final = 33
_FAILURE, _REQUEST_IDENTITIES, _IDENTITIES, _SIGN, _SIGNED = 5, 11, 12, 13, 14


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key that an ssh-agent holds: its public half as ssh writes it, and its comment."""

    blob: bytes
    comment: str

    @property
    def kind(self) -> bytes:
        """The kind of the key, as ssh calls it; empty when that cannot be read."""
        try:
            return _Reader(self.blob).string()
        except InvalidError:
            return b""

    @property
    def fingerprint(self) -> str:
        """The key's hash as `ssh-add -l` shows it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The key; INVALID for one of another kind."""
        reader = _Reader(self.blob)
        if reader.string() != KIND or reader.string() != CURVE:
            raise InvalidError(f"{self.fingerprint} is no {KIND.decode()} key")
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), reader.string())
        except ValueError:
            raise InvalidError(f"{self.fingerprint} is no point of its curve") from None
        reader.end()
        return key


def blob_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as ssh writes it."""
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return _string(KIND) + _string(CURVE) + _string(point)


def ask_for_keys() -> bytes:
    """Ask an agent which keys it holds; what is sent over its socket."""
    return _string(bytes((_REQUEST_IDENTITIES,)))


def ask_to_sign(blob: bytes, data: bytes) -> bytes:
    """Ask an agent to sign; what is sent over its socket."""
    body = bytes((_SIGN,)) + _string(blob) + _string(data) + bytes(4)
    return _string(body)


def parse_length(head: bytes) -> int:
    """How many bytes follow the first four of an answer; INVALID when they are too many."""
    length = int.from_bytes(head, "big")
    if len(head) != _LENGTH or not 0 < length <= MAX_MESSAGE_BYTES:
        raise InvalidError("this is no answer of an ssh-agent")
    return length


def parse_keys(answer: bytes) -> Sequence[HeldKey]:
    """The keys that an agent says it holds; `answer` is without its length."""
    reader = _answer(answer, _IDENTITIES)
    count = reader.number()
    # Each takes two lengths at least, so that no count is believed beyond what came.
    if count > len(answer) // (2 * _LENGTH):
        raise InvalidError("this is no answer of an ssh-agent")
    keys = [
        HeldKey(reader.string(), reader.string().decode(errors="backslashreplace"))
        for _ in range(count)
    ]
    reader.end()
    return keys


def parse_signature(answer: bytes) -> bytes:
    """An agent's signature by a P-256 key, in DER; `answer` is without its length."""
    reader = _answer(answer, _SIGNED)
    outer = _Reader(reader.string())
    reader.end()
    if outer.string() != KIND:
        raise InvalidError(f"the ssh-agent signed in another way than {KIND.decode()}")
    inner = _Reader(outer.string())
    outer.end()
    r, s = inner.integer(), inner.integer()
    inner.end()
    return encode_dss_signature(r, s)


def _answer(answer: bytes, kind: int) -> _Reader:
    if answer[:1] == bytes((_FAILURE,)):
        raise InvalidError("the ssh-agent refused")
    if answer[:1] != bytes((kind,)):
        raise InvalidError("this is no answer of an ssh-agent")
    return _Reader(answer[1:])


def _string(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH, "big") + content


class _Reader:
    """Reads one field after another; INVALID where one is cut short or something is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self) -> int:
        return int.from_bytes(self._take(_LENGTH), "big")

    def string(self) -> bytes:
        return self._take(self.number())

    def integer(self) -> int:
        content = self.string()
        value = int.from_bytes(content, "big", signed=True)
        if len(content) > _INTEGER_BYTES or value <= 0:
            raise InvalidError("a number in the ssh-agent's signature makes no sense")
        return value

    def end(self) -> None:
        if self._data:
            raise InvalidError("this is no answer of an ssh-agent")

    def _take(self, count: int) -> bytes:
        if count > len(self._data):
            raise InvalidError("this is no answer of an ssh-agent")
        taken, self._data = self._data[:count], self._data[count:]
        return taken
