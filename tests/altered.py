"""What surely differs from what it was made of, whatever that ends with."""

from __future__ import annotations


def another_id(identity: str) -> str:
    """An id with another last digit.

    >>> another_id("rp_17"), another_id("rp_10")
    ('rp_10', 'rp_11')
    """
    return identity[:-1] + ("1" if identity.endswith("0") else "0")


def flipped(data: bytes) -> bytes:
    """Bytes with another last bit.

    >>> flipped(b"ab"), flipped(b"ac")
    (b'ac', b'ab')
    """
    return data[:-1] + bytes([data[-1] ^ 1])
