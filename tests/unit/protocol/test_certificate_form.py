"""A certificate of one operator has one form of bytes."""

from __future__ import annotations

import re

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


def test_a_certificate_without_a_number_above_zero_is_refused_before_it_is_read() -> None:
    der = authority().certificate.public_bytes(Encoding.DER)
    number = der.index(bytes.fromhex("a003020102")) + 5
    assert der[number] == 0x02
    first, size = number + 2, der[number + 1]
    negative = bytearray(der)
    negative[first] |= 0x80
    zero = bytearray(der)
    zero[first : first + size] = bytes(size)
    for changed in (negative, zero):
        with pytest.raises(IdentityError, match="no serial number"):
            read_certificate(bytes(changed))


def test_what_is_no_certificate_is_refused_wherever_it_is_cut() -> None:
    der = authority().certificate.public_bytes(Encoding.DER)
    for end in range(len(der)):
        with pytest.raises(IdentityError):
            read_certificate(der[:end])


@pytest.mark.parametrize("place", [0, 1])
def test_a_year_that_no_clock_shows_makes_it_unreadable_and_nothing_worse(place: int) -> None:
    der = authority().certificate.public_bytes(Encoding.DER)
    found = re.search(rb"\x30\x1e(\x17\x0d\d{12}Z)(\x17\x0d\d{12}Z)", der)
    assert found is not None
    times = [found[1], found[2]]
    times[place] = b"\x18\x0f00000101000000Z"
    changed = bytearray(der[: found.start()] + b"\x30\x20" + b"".join(times) + der[found.end() :])
    for length in (2, 6):  # of the whole, and of what is signed
        grown = int.from_bytes(changed[length : length + 2]) + 2
        changed[length : length + 2] = grown.to_bytes(2)
    with pytest.raises(IdentityError):
        read_certificate(bytes(changed))
