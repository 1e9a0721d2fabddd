"""The record of a restore point: made and signed by the machine, checked by everybody.

What the controller must check is in the clear: ids, times, hashes, counts. What names
files, the root, the paths and what was skipped, is sealed to those who may read it.

The signature covers the encoded body as it is, so a reader of any release verifies
first and decodes then. Whether the certificates are trusted is `protocol.identity`'s
affair; when the point was received is noted outside, by the controller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

import msgspec
from blake3 import blake3
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Meta

from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import check_id
from protocol.vault.node import Root, decode_root, encode_root
from protocol.vault.seal import PrivateKey, PublicKey, binding, open_sealed, public_key, seal_to

FORMAT: Final = 1
HASH_BYTES: Final = 32
MAX_POINT_BYTES: Final = 3 * 1024 * 1024
_SIGNED: Final = b"stead vault v1 restore point\0"

_FIRST_YEAR: Final = 1900
_LAST_YEAR: Final = 9000
"""A time near the ends of what can be written has none in some zones."""

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for certificates that nobody issued, or that were damaged."""

Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


class PointSignatureError(SteadError):
    """A restore point was not signed by the certificate it carries."""

    code = Code.BAD_SIGNATURE


class SealedContents(msgspec.Struct, frozen=True):
    """The contents sealed to one recipient: `kind` is "tenant" or "machine".

    `key` is `key_id` of the recipient's public key.
    """

    kind: str
    key: bytes
    sealed: bytes


class Signs(msgspec.Struct, frozen=True):
    """How a machine's files differ from its restore point before, in numbers of files.

    Names that `appeared` and `vanished`; of those, files that were `renamed` in their directory,
    and of these, those that got the same suffix; files with other content than before, and how
    many of them look `encrypted` now and did not then. `opaque_bytes`: of large files that
    appeared and look encrypted.
    """

    appeared: Natural = 0
    vanished: Natural = 0
    renamed: Natural = 0
    suffixed: Natural = 0
    changed: Natural = 0
    encrypted: Natural = 0
    opaque_bytes: Natural = 0


class Totals(msgspec.Struct, frozen=True):
    """Counts of one restore point; `new_*` is what this one had to send.

    `new_plain_bytes` is that before compression; points of earlier releases do not say it.
    `signs` are not said where there is no restore point before to compare with. `stream_bytes`
    are those of named streams, which `bytes` does not count.
    """

    entries: Natural = 0
    files: Natural = 0
    directories: Natural = 0
    bytes: Natural = 0
    skipped: Natural = 0
    read_files: Natural = 0
    read_bytes: Natural = 0
    new_chunks: Natural = 0
    new_bytes: Natural = 0
    new_plain_bytes: Natural | msgspec.UnsetType = msgspec.UNSET
    signs: Signs | msgspec.UnsetType = msgspec.UNSET
    stream_bytes: Natural | msgspec.UnsetType = msgspec.UNSET


def known(figure: int | msgspec.UnsetType) -> int | None:
    """A count of `Totals` that may be missing; None where it is.

    >>> known(Totals(stream_bytes=0).stream_bytes), known(Totals().stream_bytes)
    (0, None)
    """
    return None if isinstance(figure, msgspec.UnsetType) else figure


class Skipped(msgspec.Struct, frozen=True):
    """A path that is not in the restore point, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What only a recipient reads. `paths` are absolute raw bytes; `skipped` may be cut
    short, the point's `totals.skipped` is the whole count.
    """

    root: Root
    paths: tuple[bytes, ...]
    skipped: tuple[Skipped, ...] = ()


class _Sealed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    root: bytes
    paths: tuple[bytes, ...]
    skipped: tuple[tuple[bytes, str], ...]


class RestorePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One backup of one machine at one time.

    `rules`, `root` and `previous` are 32-byte hashes: of the selection rules, of the root
    node (its chunk id), and of the body of the machine's previous restore point. `scope`
    is the scope of deduplication, "tenant" or "machine".
    """

    format: Annotated[int, Meta(ge=1, le=FORMAT)] = FORMAT
    id: str
    tenant: str
    machine: str
    started_at: Annotated[datetime, Meta(tz=True)]
    rules: Hash
    detector: str
    scope: str
    root: Hash
    sealed: tuple[SealedContents, ...]
    totals: Totals
    previous: Hash | None = None
    agent: str


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """A restore point as it is stored: body, certificates (DER, leaf first), signature."""

    version: Annotated[int, Meta(ge=1, le=1)]
    body: bytes
    chain: tuple[bytes, ...]
    signature: bytes


_decode_body = msgspec.msgpack.Decoder(RestorePoint).decode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


def encode_point(point: RestorePoint) -> bytes:
    """The body that is signed: a MessagePack map. `InvalidError` beyond 3 MiB."""
    _check(point)
    data = msgspec.msgpack.encode(point)
    if len(data) > MAX_POINT_BYTES:
        raise InvalidError("a restore point is too large; list fewer skipped files")
    return data


def decode_point(body: bytes) -> RestorePoint:
    """Read a body; fields of later releases are ignored. Raises `InvalidError`."""
    try:
        point = _decode_body(body)
    except (ValueError, RecursionError, OverflowError) as error:
        raise InvalidError(f"a restore point cannot be read: {error}") from error
    _check(point)
    return point


def _check(point: RestorePoint) -> None:
    for prefix, text in (("rp", point.id), ("tn", point.tenant), ("mc", point.machine)):
        check_id(prefix, text)
    if not _FIRST_YEAR <= point.started_at.year <= _LAST_YEAR:
        raise InvalidError(f"a restore point cannot have begun in the year {point.started_at.year}")
    if point.scope not in ("tenant", "machine"):
        raise InvalidError(f"{point.scope[:80]!r} is not a scope of deduplication")


def point_hash(body: bytes) -> bytes:
    """32 bytes by which the machine's next restore point names this one."""
    return blake3(body, derive_key_context="stead vault v1 restore point hash").digest()


def sign_point(
    point: RestorePoint, key: EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]
) -> bytes:
    """The encoded envelope of a restore point signed by a machine's P-256 key."""
    body = encode_point(point)
    signature = key.sign(_SIGNED + body, ECDSA(SHA256()))
    certificates = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    return msgspec.msgpack.encode(Envelope(1, body, certificates, signature))


def decode_envelope(data: bytes) -> Envelope:
    """Read an envelope without judging it; `InvalidError` when it is not one."""
    if len(data) > MAX_POINT_BYTES + 64 * 1024:
        raise InvalidError("a restore point is too large")
    try:
        return _decode_envelope(data)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"a restore point cannot be read: {error}") from error


def verify_point(envelope: Envelope) -> RestorePoint:
    """The restore point, once the leaf certificate's key is seen to have signed it.

    Raises `PointSignatureError` or `InvalidError`. Check the chain beside this, and that
    the leaf names the point's machine and tenant.
    """
    if not envelope.chain:
        raise PointSignatureError("a restore point carries no certificate")
    try:
        key = x509.load_der_x509_certificate(envelope.chain[0]).public_key()
    except UNREADABLE as error:
        raise PointSignatureError("a restore point carries an unreadable certificate") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise PointSignatureError("a restore point is signed with a key of another kind")
    try:
        key.verify(envelope.signature, _SIGNED + envelope.body, ECDSA(SHA256()))
    except InvalidSignature:
        raise PointSignatureError(
            "a restore point's signature does not fit: it was altered; run `stead vault check`"
        ) from None
    return decode_point(envelope.body)


def key_id(recipient: PublicKey | bytes) -> bytes:
    """16 bytes that name a public key among the recipients of a root."""
    key = public_key(recipient) if isinstance(recipient, bytes) else recipient
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return blake3(encoded, derive_key_context="stead vault v1 key id").digest()[:16]


def seal_contents(
    contents: Contents,
    recipient: PublicKey | bytes,
    *,
    kind: str,
    tenant: str,
    machine: str,
    point: str,
) -> SealedContents:
    """Seal the contents of a restore point to a recipient; `kind` is "tenant" or "machine"."""
    plain = msgspec.msgpack.encode(
        _Sealed(
            encode_root(contents.root),
            contents.paths,
            tuple((one.path, one.reason) for one in contents.skipped),
        )
    )
    sealed = seal_to(recipient, plain, binding("contents", tenant, machine, point))
    return SealedContents(kind, key_id(recipient), sealed)


def open_contents(recipient: PrivateKey, point: RestorePoint) -> Contents:
    """The contents of a restore point that was sealed to this key.

    Raises `InvalidError` when it was not, `SealedError` when it cannot be opened, and
    `InvalidError` when the root inside is not the one that the point names.
    """
    wanted = key_id(recipient.public_key())
    for sealed in point.sealed:
        if sealed.key == wanted:
            context = binding("contents", point.tenant, point.machine, point.id)
            contents = _contents(open_sealed(recipient, sealed.sealed, context))
            if contents.root.reference.id != point.root:
                raise InvalidError(f"restore point {point.id} names another root than it seals")
            return contents
    raise InvalidError(f"restore point {point.id} is not sealed to this key; use the recovery key")


def _contents(plain: bytes) -> Contents:
    try:
        found = msgspec.msgpack.decode(plain, type=_Sealed)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"a restore point's contents cannot be read: {error}") from error
    skipped = tuple(Skipped(path, reason) for path, reason in found.skipped)
    return Contents(decode_root(found.root), found.paths, skipped)
