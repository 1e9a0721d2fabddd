"""A root, its issuing authority, and checkpoints that it signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.certificates import Issuer, make_issuing, make_root
from controller.authority.keys import new_key, new_serial
from protocol.checkpoint import Checkpoint, encode_signed, sign_checkpoint
from protocol.merkle import Frontier, Node

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
TENANT = "tn_" + "0" * 26
OTHER = "tn_" + "1" * 26


def entry(number: int, branch: str = "") -> bytes:
    return blake3(f"{branch}{number}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Signers:
    """An installation's authorities."""

    root: Issuer
    issuing: Issuer

    @classmethod
    def new(cls) -> Signers:
        root_key, key = new_key(), new_key()
        root = Issuer(make_root(root_key, serial=new_serial(), now=AT), root_key)
        made = make_issuing(root, key.public_key(), serial=new_serial(), now=AT)
        return cls(root, Issuer(made, key))

    @property
    def certificate(self) -> x509.Certificate:
        return self.root.certificate

    def sign(self, checkpoint: Checkpoint, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        der = self.issuing.certificate.public_bytes(Encoding.DER)
        return encode_signed(sign_checkpoint(checkpoint, key or self.issuing.key, der))


def node_of(entries: list[bytes]) -> Node:
    """The nodes over a log that is all in memory."""

    def node(level: int, number: int) -> bytes:
        tree = Frontier()
        for one in entries[number << level : (number + 1) << level]:
            tree.add(one)
        return tree.root()

    return node


def checkpoint(
    entries: list[bytes], log: str = TENANT, at: datetime = AT + timedelta(hours=1)
) -> Checkpoint:
    tree = Frontier()
    for one in entries:
        tree.add(one)
    return Checkpoint(log, len(entries), tree.root(), entries[-1] if entries else bytes(32), at)
