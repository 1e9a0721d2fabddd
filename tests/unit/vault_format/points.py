"""A restore point to test with, and certificates to sign it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from protocol.vault.node import Root
from protocol.vault.point import Contents, RestorePoint, SealedContents, Skipped, Totals

TENANT = "tn_00000000000000000000000001"
MACHINE = "mc_00000000000000000000000002"
POINT = "rp_00000000000000000000000003"
STARTED = datetime(2026, 5, 1, 12, 30, 15, 250_000, tzinfo=UTC)


def machine_key(number: int = 7) -> EllipticCurvePrivateKey:
    return derive_private_key(number, SECP256R1())


def certificate(key: EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "machine")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(STARTED)
        .not_valid_after(STARTED + timedelta(days=7))
        .sign(key, SHA256())
    )


def contents(root: Root) -> Contents:
    skipped = (Skipped(b"/etc/shadow-", "permission denied"),)
    return Contents(root, (b"/etc", b"/home/\xff"), skipped)


def restore_point(root: Root, *sealed: SealedContents) -> RestorePoint:
    return RestorePoint(
        id=POINT,
        tenant=TENANT,
        machine=MACHINE,
        started_at=STARTED,
        rules=bytes([1]) * 32,
        detector="walk",
        scope="tenant",
        root=root.reference.id,
        sealed=sealed,
        totals=Totals(entries=root.entries, files=root.files, bytes=root.bytes, skipped=1),
        previous=bytes([2]) * 32,
        agent="0.1.0",
    )
