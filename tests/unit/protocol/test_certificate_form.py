"""A certificate of one operator has one form of bytes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.identity import IdentityError, read_certificate
from tests.unit.protocol.signed import authority


def test_a_certificate_is_read_in_one_form_alone() -> None:
    while True:
        # Every second one has a signature whose last bit is zero, which may be called unused.
        leaf = authority().certificate
        if leaf.signature[-1] & 1 == 0:
            break
    der = leaf.public_bytes(Encoding.DER)
    assert read_certificate(der) == leaf
    place = len(der) - len(leaf.signature) - 1
    assert der[place] == 0
    with pytest.raises(IdentityError):
        read_certificate(der[:place] + b"\x01" + der[place + 1 :])
