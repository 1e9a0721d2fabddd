"""Orders: what an operator signs, and what a machine checks before it obeys.

Pure: keys, certificates and the time come in. Signatures are over the exact bytes
that travel; nothing is serialized again before it is checked. Who carries an order
does not matter, so a controller can delay one or drop it and can do nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.action import Action
from protocol.action_class import ActionClass
from protocol.errors import Code, SteadError
from protocol.identity import (
    IdentityError,
    OperatorIdentity,
    Role,
    believe,
    key_hash,
    read_certificate,
)
from protocol.ids import MachineId, OrderId, TenantId
from protocol.rollout import Rollout
from protocol.standing import Standing, check_standing
from protocol.window import parse_windows

DOMAIN = b"stead order v1\0"
CLOCK_TOLERANCE = timedelta(minutes=5)
MAX_ENVELOPE_BYTES = 2 * 1024 * 1024
MAX_SIGNATURES = 8
LONGEST_DELIVERY = timedelta(days=10_000)
"""From signing to the last time for delivery: as long as that a machine remembers an order."""

MAY_ACT = frozenset({Role.ADMIN, Role.TECHNICIAN})
MAY_CHANGE_KEYS = frozenset({Role.ADMIN})
MAY_ORDER: Mapping[ActionClass, frozenset[Role]] = {
    ActionClass.OBSERVE: MAY_ACT | {Role.HELPDESK},
    ActionClass.ROUTINE: MAY_ACT,
    ActionClass.DANGEROUS: MAY_ACT,
}
"""Which roles may order which class of action."""


class OrderRejectedError(SteadError):
    """An order that a machine does not accept; its code and message say why."""

    code = Code.DENIED


@dataclass(frozen=True, slots=True)
class Order:
    """An instruction to machines of one tenant. Times are UTC."""

    id: OrderId
    tenant: TenantId
    machines: tuple[MachineId, ...]
    action: Action
    issued_at: datetime
    not_before: datetime
    deliver_by: datetime
    timeout: timedelta
    reason: str = ""
    repeatable: bool = False
    rollout: Rollout | None = None
    """None is every machine at once."""
    windows: tuple[str, ...] = ()
    """When it may be started, in the machine's own zone; see `protocol.window`."""
    catch_up: bool = False
    retry_of: OrderId | None = None
    policy_version: int = 0
    """The newest policy of the tenant that the signer knew; 0 for none."""
    revocations_version: int = 0
    """The newest list of revoked operators that the signer knew; 0 for none."""
    standing: Standing | None = None
    """None is once."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One operator's signature: certificate in DER, ECDSA signature in DER."""

    certificate: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """An order's exact bytes with its signatures.

    `revocations` is an encoded `SignedRevocations`, or empty: the signer's newest list, for
    machines that have not got it. `policy` is an encoded `SignedPolicy` of the tenant, or empty.
    """

    order: bytes
    signatures: tuple[Signature, ...]
    revocations: bytes = b""
    policy: bytes = b""


def signed_bytes(order: bytes) -> bytes:
    """What is signed: a fixed word, then SHA-256 of the order's bytes."""
    return DOMAIN + hashlib.sha256(order).digest()


def sign(
    order: bytes, *, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> Envelope:
    """Sign an order's bytes as one operator."""
    return enveloped(order, key.sign(signed_bytes(order), ec.ECDSA(SHA256())), certificate)


def enveloped(order: bytes, signature: bytes, certificate: x509.Certificate) -> Envelope:
    """An order with one operator's signature over `signed_bytes`, wherever the key is."""
    return Envelope(order, (Signature(certificate.public_bytes(Encoding.DER), signature),))


@dataclass(frozen=True, slots=True)
class Signer:
    """An operator whose signature is good; `key` is the hash of the key that made it."""

    identity: OperatorIdentity
    key: bytes


def signer_of(envelope: Envelope, *, root: x509.Certificate, now: datetime) -> OperatorIdentity:
    """Return the operator who signed first, or raise `OrderRejectedError`; see `signers_of`."""
    return signers_of(envelope, root=root, now=now)[0].identity


def signers_of(
    envelope: Envelope, *, root: x509.Certificate, now: datetime, until: datetime | None = None
) -> tuple[Signer, ...]:
    """Return the operators who signed, at least one, or raise `OrderRejectedError`.

    `until` is for an order that is judged as of its signing: whoever signed it after the first
    may have a certificate that begins later, but not later than this.

    Every signature must be good: an envelope with one that is not is not a weaker
    envelope but a forged one.
    """
    if not envelope.signatures:
        raise OrderRejectedError("the order is not signed", code=Code.BAD_SIGNATURE)
    first, *others = envelope.signatures
    return (
        _check(first, envelope.order, root, now),
        *(_check(s, envelope.order, root, now, until) for s in others),
    )


def _check(
    signature: Signature,
    order: bytes,
    root: x509.Certificate,
    now: datetime,
    until: datetime | None = None,
) -> Signer:
    try:
        leaf = read_certificate(signature.certificate)
        if until is not None:
            now = max(now, min(until, leaf.not_valid_before_utc))
        identity = believe(leaf, root=root, issuing=(), now=now)
    except IdentityError as error:
        code = Code.EXPIRED if error.code is Code.EXPIRED else Code.BAD_SIGNATURE
        raise OrderRejectedError(f"the signer is not believed: {error}", code=code) from error
    key = leaf.public_key()
    if not isinstance(identity, OperatorIdentity) or not isinstance(key, ec.EllipticCurvePublicKey):
        raise OrderRejectedError("only operators sign orders", code=Code.BAD_SIGNATURE)
    try:
        key.verify(signature.signature, signed_bytes(order), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise OrderRejectedError(
            "the signature does not fit the order", code=Code.BAD_SIGNATURE
        ) from None
    return Signer(identity, key_hash(key))


def check_acceptable(
    order: Order,
    signer: OperatorIdentity,
    *,
    tenant: TenantId,
    machine: MachineId,
    now: datetime,
    latest_seen: datetime,
) -> None:
    """Raise `OrderRejectedError` unless this machine is to execute the order now, or in the
    next of its windows; `InvalidError` for what is no window.

    `latest_seen` is the latest time that the machine has ever believed: a clock set
    back does not bring an expired order to life. Replays are the journal's to find, and who
    may order what is judged by `protocol.approval`.
    """
    if order.tenant != tenant:
        raise OrderRejectedError("the order is for another tenant", code=Code.WRONG_TENANT)
    if not signer.may_see(order.tenant):
        raise OrderRejectedError(f"{signer.name} has no say in this tenant", code=Code.WRONG_TENANT)
    if machine not in order.machines:
        raise OrderRejectedError("the order is for other machines", code=Code.WRONG_TARGET)
    if max(now, latest_seen) > order.deliver_by:
        raise OrderRejectedError(_late(order, now, latest_seen), code=Code.EXPIRED)
    if now + CLOCK_TOLERANCE < max(order.not_before, order.issued_at):
        raise OrderRejectedError(
            f"the order is not to be executed before {order.not_before:%Y-%m-%d %H:%M:%S}Z; "
            f"this machine's clock says {now:%Y-%m-%d %H:%M:%S}Z",
            code=Code.CLOCK_SKEW,
        )
    parse_windows(order.windows)
    if order.standing is not None:
        check_standing(order.standing, order.action, order.issued_at)
    check_times(order)


def _late(order: Order, now: datetime, latest_seen: datetime) -> str:
    words = f"the order was to be delivered by {order.deliver_by:%Y-%m-%d %H:%M:%S}Z"
    if now > order.deliver_by:
        return words
    return (
        f"{words}; this machine's clock says {now:%Y-%m-%d %H:%M:%S}Z, and once said "
        f"{latest_seen:%Y-%m-%d %H:%M:%S}Z, when the controller's said so too: orders from before "
        "that are not taken. Where both were ahead then, begin as a new machine with "
        "`stead-agent enroll --force`"
    )


def check_times(order: Order) -> None:
    """Raise INVALID for times that make no sense, whenever they are looked at."""
    if not timedelta() <= order.deliver_by - order.issued_at <= LONGEST_DELIVERY:
        raise OrderRejectedError(
            "the order's times make no sense: its last time for delivery is after its signing, "
            f"and at most {LONGEST_DELIVERY.days} days",
            code=Code.INVALID,
        )
    if order.timeout <= timedelta():
        raise OrderRejectedError(
            "the order's times make no sense: it leaves none for execution", code=Code.INVALID
        )
