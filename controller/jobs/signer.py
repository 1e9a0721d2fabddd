"""What the certificate that an operator shows tells the controller about them."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, select, update

from controller.db.schema import operators
from protocol.identity import made_at


def note_shown(connection: Connection, name: str, certificate: x509.Certificate) -> None:
    """Keep a known operator's certificate that was made later than the one that is known.

    The caller has checked that the root signed it for that name: it was renewed, which
    needs no controller.
    """
    row = connection.execute(
        select(operators.c.id, operators.c.certificate).where(
            operators.c.name == name, operators.c.revoked_at.is_(None)
        )
    ).one_or_none()
    shown = certificate.public_bytes(Encoding.DER)
    if row is None or row.certificate == shown:
        return
    known = x509.load_der_x509_certificate(row.certificate)
    if made_at(certificate) > made_at(known):
        connection.execute(
            update(operators).where(operators.c.id == row.id).values(certificate=shown)
        )
