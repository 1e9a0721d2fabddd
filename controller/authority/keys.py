"""Draw what certificates need and nobody may guess: keys and serial numbers."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key: the curve that gRPC's TLS and every platform's key store take."""
    return ec.generate_private_key(ec.SECP256R1())


def new_serial() -> int:
    """A serial number of 159 random bits (RFC 5280 allows 160 and no sign)."""
    return x509.random_serial_number()
