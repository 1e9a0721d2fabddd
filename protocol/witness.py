"""What a machine says about the audit logs that it watches, so that nobody can change it.

Pure. A statement holds the checkpoints that the machine keeps and the alarms that it
raised. The machine signs it with its own key. Whoever holds the issuing authority could
certify a key of his own in the machine's name; so the statement carries a second proof, a
hash keyed with the tenant's vault secret, which machines and operators have and the
controller has not. `nonce` is the asking operator's: an old statement answers no new question.

The signed bytes are "stead witness v1", a NUL, then SHA-256 of the msgpack array
[1, tenant, machine, nonce, microseconds since 1970, kept, alarms]; an alarm is the array
[found, microseconds since 1970, times, kept, told].
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec
from blake3 import blake3
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from protocol.checkpoint import (
    Checkpoint,
    Found,
    decode_checkpoint,
    decode_signed,
    from_us,
    to_us,
)
from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.identity import MachineIdentity, believe, read_certificate
from protocol.ids import MachineId, TenantId

VERSION = 1
DOMAIN = b"stead witness v1\0"
NONCE_BYTES = 16
MAX_STATEMENT_BYTES = 256 * 1024
_CONTEXT = "stead witness proof v1"

INSTALLATION = ""
"""The log of the installation, where others have a tenant's id."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A log that was not what it had been. `kept` and `told` are signed checkpoints as they
    were; `told` is whatever came where `found` is UNSIGNED. `times` counts, `at` is the first.
    """

    found: Found
    at: datetime
    times: int
    kept: bytes
    told: bytes


@dataclass(frozen=True, slots=True)
class Watched:
    """Signed checkpoints and alarms, by log: a tenant's id, or empty for the installation's.

    Of each log there is at most one alarm of each kind.
    """

    kept: dict[str, bytes] = field(default_factory=dict)
    alarms: dict[str, list[Alarm]] = field(default_factory=dict)

    def checkpoints(self) -> dict[str, Checkpoint]:
        """What is kept, opened. Signatures were checked when it was taken."""
        return {log: decode_checkpoint(decode_signed(made).body) for log, made in self.kept.items()}

    def sizes(self) -> dict[str, int]:
        """Of how many entries each kept checkpoint is."""
        return {log: one.size for log, one in self.checkpoints().items()}

    def each_alarm(self) -> list[tuple[str, Alarm]]:
        """All alarms with their logs."""
        return [(log, alarm) for log, alarms in self.alarms.items() for alarm in alarms]

    def with_alarm(self, log: str, found: Found, told: bytes, now: datetime) -> Watched:
        """The same with an alarm more, or with one that came again: its evidence is the first."""
        alarms = list(self.alarms.get(log, ()))
        for place, one in enumerate(alarms):
            if one.found is found:
                alarms[place] = replace(one, times=one.times + 1)
                break
        else:
            alarms.append(Alarm(found, now, 1, self.kept.get(log, b""), told))
        return Watched(self.kept, {**self.alarms, log: alarms})


def encode_watched(watched: Watched) -> bytes:
    """What is kept, as the file `witness` in the agent's directory has it: JSON."""
    return msgspec.json.encode(watched)


def decode_watched(data: bytes) -> Watched:
    """Read what `encode_watched` made; INVALID for all else. Checks no signature."""
    try:
        watched = msgspec.json.decode(data, type=Watched)
        watched.sizes()
    except (SteadError, *UNREADABLE) as error:
        raise InvalidError(f"this is not what a machine keeps of the audit logs: {error}") from None
    return watched


@dataclass(frozen=True, slots=True)
class Statement:
    """What one machine keeps, at one time, for one who asked. `kept` are signed checkpoints."""

    tenant: TenantId
    machine: MachineId
    nonce: bytes
    at: datetime
    kept: tuple[bytes, ...]
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement's bytes, the machine's signature, its chain in DER, and the keyed hash."""

    body: bytes
    signature: bytes
    chain: tuple[bytes, ...]
    proof: bytes


def encode_statement(statement: Statement) -> bytes:
    """The bytes that are hashed and signed."""
    alarms = [(a.found.value, to_us(a.at), a.times, a.kept, a.told) for a in statement.alarms]
    return msgspec.msgpack.encode(
        (
            VERSION,
            statement.tenant,
            statement.machine,
            statement.nonce,
            to_us(statement.at),
            statement.kept,
            alarms,
        )
    )


def decode_statement(data: bytes) -> Statement:
    """Read what `encode_statement` made; INVALID for all else."""
    kind = tuple[int, str, str, bytes, int, list[bytes], list[tuple[str, int, int, bytes, bytes]]]
    if len(data) > MAX_STATEMENT_BYTES:
        raise InvalidError(f"a statement has at most {MAX_STATEMENT_BYTES} bytes")
    try:
        version, tenant, machine, nonce, at, kept, alarms = msgspec.msgpack.decode(data, type=kind)
        if version != VERSION:
            raise SteadError(
                f"a statement of version {version} is not known here; upgrade this side",
                code=Code.UNSUPPORTED,
            )
        return Statement(
            tenant=TenantId(tenant),
            machine=MachineId(machine),
            nonce=nonce,
            at=from_us(at),
            kept=tuple(kept),
            alarms=tuple(
                Alarm(Found(found), from_us(when), times, before, told)
                for found, when, times, before, told in alarms
            ),
        )
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidError("these bytes are not a witness's statement") from error


def sign_statement(
    statement: Statement,
    *,
    key: ec.EllipticCurvePrivateKey,
    chain: tuple[bytes, ...],
    secret: bytes,
) -> SignedStatement:
    """Sign with the machine's key; `secret` is the vault secret's `convergence`, 32 bytes."""
    body = encode_statement(statement)
    signature = key.sign(_signed_bytes(body), ec.ECDSA(SHA256()))
    return SignedStatement(body, signature, chain, statement_proof(body, secret))


def statement_proof(body: bytes, secret: bytes) -> bytes:
    """BLAKE3 of a statement, keyed by what the tenant's vault secret derives: 32 bytes."""
    key = blake3(secret, derive_key_context=_CONTEXT).digest()
    return blake3(_signed_bytes(body), key=key).digest()


def is_proven(signed: SignedStatement, secret: bytes) -> bool:
    """Whether somebody with the tenant's vault secret made the statement."""
    return hmac.compare_digest(statement_proof(signed.body, secret), signed.proof)


def open_statement(
    signed: SignedStatement,
    *,
    root: x509.Certificate,
    machine: MachineId,
    tenant: TenantId,
    nonce: bytes,
    now: datetime,
    distrusted: Collection[bytes] = (),
) -> Statement:
    """The statement of a machine that was asked with `nonce`; BAD_SIGNATURE for any other.

    Whether it is proven by the tenant's secret too is `is_proven`'s word.
    """
    statement = decode_statement(signed.body)
    if len(signed.chain) < 2:
        raise SteadError("the statement names no signer", code=Code.BAD_SIGNATURE)
    leaf, *issuing = map(read_certificate, signed.chain)
    identity = believe(leaf, root=root, issuing=issuing, now=now, distrusted=distrusted)
    claimed = MachineIdentity(statement.tenant, statement.machine)
    if identity != claimed or claimed != MachineIdentity(tenant, machine):
        raise SteadError("the statement is another machine's", code=Code.BAD_SIGNATURE)
    if statement.nonce != nonce:
        raise SteadError("the statement answers another question", code=Code.REPLAYED)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SteadError("the machine's key is none that signs", code=Code.BAD_SIGNATURE)
    try:
        key.verify(signed.signature, _signed_bytes(signed.body), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise SteadError(
            "the statement is not signed by the machine", code=Code.BAD_SIGNATURE
        ) from None
    return statement


def _signed_bytes(body: bytes) -> bytes:
    return DOMAIN + hashlib.sha256(body).digest()
