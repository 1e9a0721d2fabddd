"""An installation's root, an operator, and an order that a machine accepts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controller.authority.certificates import (
    Issuer,
    certify_machine,
    certify_operator,
    make_issuing,
    make_root,
)
from controller.authority.keys import new_key, new_serial
from protocol.action import CollectInventory
from protocol.approval import check_approved
from protocol.codec import decode_envelope, decode_order, encode_envelope, encode_order
from protocol.identity import MachineIdentity, OperatorIdentity, Role
from protocol.ids import MachineId, OrderId, TenantId
from protocol.order import Envelope, Order, check_acceptable, sign, signers_of
from protocol.policy import no_policy

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TENANT = TenantId("tn_" + "0" * 26)
MACHINE = MachineId("mc_" + "0" * 26)
ORDER = Order(
    id=OrderId("or_" + "0" * 26),
    tenant=TENANT,
    machines=(MACHINE,),
    action=CollectInventory(("cpu",)),
    issued_at=NOW,
    not_before=NOW,
    deliver_by=NOW + timedelta(hours=1),
    timeout=timedelta(minutes=1),
    reason="because",
)


def authority(*, of: Issuer | None = None) -> Issuer:
    """A root, or an issuing authority of one. Older than everything that it signs."""
    key, made_at = new_key(), NOW - timedelta(days=30)
    if of is None:
        return Issuer(make_root(key, serial=new_serial(), now=made_at), key)
    return Issuer(make_issuing(of, key.public_key(), serial=new_serial(), now=made_at), key)


ROOT = authority()
ISSUING = authority(of=ROOT)
KEY = new_key()


def operator(
    issuer: Issuer = ROOT,
    *,
    role: Role = Role.TECHNICIAN,
    tenants: frozenset[TenantId] | None = None,
    key: ec.EllipticCurvePrivateKey = KEY,
    now: datetime = NOW,
) -> x509.Certificate:
    identity = OperatorIdentity("ann", role, tenants)
    return certify_operator(issuer, key.public_key(), identity, serial=new_serial(), now=now)


def machine_certificate() -> x509.Certificate:
    identity = MachineIdentity(TENANT, MACHINE)
    return certify_machine(ISSUING, KEY.public_key(), identity, serial=new_serial(), now=NOW)


ANN = operator()


def signed(order: Order = ORDER, certificate: x509.Certificate = ANN) -> Envelope:
    return sign(encode_order(order), key=KEY, certificate=certificate)


def accept(
    envelope: Envelope | bytes,
    *,
    tenant: TenantId = TENANT,
    machine: MachineId = MACHINE,
    now: datetime = NOW,
    latest_seen: datetime = NOW,
    root: x509.Certificate = ROOT.certificate,
) -> tuple[Order, OperatorIdentity]:
    """What a machine does with an envelope, up to looking it up in its journal."""
    travelled = envelope if isinstance(envelope, bytes) else encode_envelope(envelope)
    opened = decode_envelope(travelled)
    signers = signers_of(opened, root=root, now=now)
    signer = signers[0].identity
    order = decode_order(opened.order)
    check_acceptable(
        order, signer, tenant=tenant, machine=machine, now=now, latest_seen=latest_seen
    )
    check_approved(order, signers, no_policy(tenant))
    return order, signer
