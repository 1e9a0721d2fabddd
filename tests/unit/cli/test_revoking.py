"""Whose key a list names, where the controller shows whatever certificate it likes."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.certificates import certify_operator
from controller.authority.keys import new_serial
from controller.cli.operator.revoking import revoked_operator
from protocol.identity import OperatorIdentity, Role, key_hash
from protocol.revocation import RevokedOperator
from protocol.v1.operator_pb2 import Operator
from tests.unit.protocol.signed import ANN, KEY, NOW, ROOT, authority, machine_certificate, operator


def entry(shown: x509.Certificate | bytes, name: str = "ann") -> RevokedOperator:
    der = shown if isinstance(shown, bytes) else shown.public_bytes(Encoding.DER)
    return revoked_operator(Operator(name=name, certificate=der), NOW, ROOT.certificate)


def test_the_key_is_the_one_that_the_root_certified_for_that_name() -> None:
    assert entry(ANN) == RevokedOperator("ann", key_hash(KEY.public_key()), NOW)


def test_nobody_else_is_revoked_with_somebody() -> None:
    bob = OperatorIdentity("bob", Role.ADMIN, None)
    bobs = certify_operator(ROOT, KEY.public_key(), bob, serial=new_serial(), now=NOW)
    for shown in (bobs, operator(authority()), machine_certificate(), b"", b"nonsense"):
        assert entry(shown) == RevokedOperator("ann", b"", NOW)
