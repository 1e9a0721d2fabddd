"""Who backs up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from protocol.ids import MachineId, TenantId
from protocol.vault.keys import VaultSecret


@dataclass(frozen=True, slots=True)
class Who:
    """The machine that backs up, and what it seals and signs with.

    `own_key`: its X25519 public key (32 bytes), when its restore points are sealed to that
    as well.
    """

    tenant: TenantId
    machine: MachineId
    secret: VaultSecret
    key: EllipticCurvePrivateKey
    chain: Sequence[x509.Certificate]
    release: str
    own_key: bytes | None = None
