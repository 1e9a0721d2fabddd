"""What a controller signs about an audit log, and what two such words say about each other.

Pure. A checkpoint says: at this moment the log had so many entries, with this Merkle root
and this hash of the last one. It is signed by the issuing authority's key, whose
certificate by the root goes with it, so that whoever has the root's certificate can check
it without asking anybody. A signature does not make it true. It makes it undeniable: two
checkpoints that contradict each other prove to everybody that the log was forked.

The signed bytes are "stead checkpoint v1", a NUL, then SHA-256 of the msgpack array
[1, log, entries, root, head, microseconds since 1970]; ECDSA over P-256 with SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.identity import IdentityError, believe_authority, read_certificate
from protocol.merkle import HASH_BYTES, is_consistent

VERSION = 1
DOMAIN = b"stead checkpoint v1\0"
MAX_SIGNED_BYTES = 16 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_US = 253_402_300_799_000_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`log` is a tenant's id, or empty for the installation's log; `head` the last entry's hash."""

    log: str
    size: int
    root: bytes
    head: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint's exact bytes, the signature in DER, the authority's certificate in DER."""

    body: bytes
    signature: bytes
    certificate: bytes


class Found(StrEnum):
    """What a checkpoint that was told is to one that was kept."""

    SAME = "same"
    """The same log."""
    NEWER = "newer"
    """The same log with more entries, and that is proven."""
    FORKED = "forked"
    """Another log, or one that cannot be shown to be the same."""
    SHRUNK = "shrunk"
    """A log with fewer entries."""
    UNSIGNED = "unsigned"
    """Nothing that this installation's controller signed."""
    LOST = "lost"
    """What was kept cannot be read any more, so that nobody can say whether this continues it."""

    @property
    def good(self) -> bool:
        """Whether a log that is only added to looks like this."""
        return self in {Found.SAME, Found.NEWER}


def to_us(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The time of so many microseconds since 1970; INVALID when out of range."""
    if not 0 <= us <= _LAST_US:
        raise InvalidError(f"{us} is not a time in microseconds since 1970")
    return _EPOCH + us * _MICROSECOND


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes that are hashed and signed; the same for the same checkpoint."""
    fields = (checkpoint.log, checkpoint.size, checkpoint.root, checkpoint.head)
    return msgspec.msgpack.encode((VERSION, *fields, to_us(checkpoint.at)))


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Read what `encode_checkpoint` made; INVALID for all else."""
    try:
        version, log, size, root, head, at_us = msgspec.msgpack.decode(
            data, type=tuple[int, str, int, bytes, bytes, int]
        )
    except UNREADABLE as error:
        raise InvalidError("these bytes are not a checkpoint") from error
    if version != VERSION:
        raise SteadError(
            f"a checkpoint of version {version} is not known to this release; upgrade this side",
            code=Code.UNSUPPORTED,
        )
    if not (len(root) == len(head) == HASH_BYTES and 0 <= size < 1 << 63):
        raise InvalidError("a checkpoint's fields are out of range")
    made = Checkpoint(log, size, root, head, from_us(at_us))
    if encode_checkpoint(made) != data:
        raise InvalidError("these bytes are not how a checkpoint is written")
    return made


def signed_bytes(body: bytes) -> bytes:
    """What is signed: a fixed word, then SHA-256 of the checkpoint's bytes."""
    return DOMAIN + hashlib.sha256(body).digest()


def sign_checkpoint(
    checkpoint: Checkpoint, key: ec.EllipticCurvePrivateKey, certificate: bytes
) -> SignedCheckpoint:
    """Sign with the issuing authority's key; `certificate` is its own, in DER."""
    body = encode_checkpoint(checkpoint)
    return SignedCheckpoint(body, key.sign(signed_bytes(body), ec.ECDSA(SHA256())), certificate)


def encode_signed(signed: SignedCheckpoint) -> bytes:
    """A signed checkpoint as it travels and is kept."""
    return msgspec.msgpack.encode((signed.body, signed.signature, signed.certificate))


def decode_signed(data: bytes) -> SignedCheckpoint:
    """Undo `encode_signed`; INVALID for all else. Says nothing about the signature."""
    if len(data) > MAX_SIGNED_BYTES:
        raise InvalidError(f"a signed checkpoint has at most {MAX_SIGNED_BYTES} bytes")
    try:
        fields = msgspec.msgpack.decode(data, type=tuple[bytes, bytes, bytes])
    except UNREADABLE as error:
        raise InvalidError("these bytes are not a signed checkpoint") from error
    return SignedCheckpoint(*fields)


def open_checkpoint(
    data: bytes, root: x509.Certificate, *, distrusted: Collection[bytes] = ()
) -> Checkpoint:
    """The checkpoint in what anybody may have sent.

    BAD_SIGNATURE unless an issuing authority of this root signed these very bytes, within
    the time of its certificate by the checkpoint's own clock; DISTRUSTED for one that is not
    believed any more, whatever that clock says. INVALID for other bytes.
    """
    signed = decode_signed(data)
    checkpoint = decode_checkpoint(signed.body)
    try:
        authority = read_certificate(signed.certificate)
        believe_authority(authority, root=root, now=checkpoint.at, distrusted=distrusted)
    except IdentityError as error:
        if error.code is Code.DISTRUSTED:
            raise
        raise SteadError(
            f"the checkpoint's signer is no authority of this installation: {error}",
            code=Code.BAD_SIGNATURE,
        ) from error
    key = authority.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SteadError("the authority's key is none that signs", code=Code.BAD_SIGNATURE)
    try:
        key.verify(signed.signature, signed_bytes(signed.body), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise SteadError(
            "the checkpoint is not signed by the authority that it names",
            code=Code.BAD_SIGNATURE,
        ) from None
    return checkpoint


def judge(kept: Checkpoint, told: Checkpoint, proof: Sequence[bytes]) -> Found:
    """What a checkpoint says to whoever kept an earlier one of the same log.

    `proof` is a consistency proof from the kept one's size to the told one's.
    """
    if kept.log != told.log:
        raise ValueError("two logs say nothing about each other")
    if told.size < kept.size:
        return Found.SHRUNK
    if told.size == kept.size:
        same = (told.root, told.head) == (kept.root, kept.head)
        return Found.SAME if same else Found.FORKED
    if is_consistent(kept.size, kept.root, told.size, told.root, proof):
        return Found.NEWER
    return Found.FORKED


def render_log(log: str) -> str:
    """A log's name where no tenant's name is known."""
    return log or "installation"
