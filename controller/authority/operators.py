"""Operators as the controller knows them: recorded, listed, revoked.

The root makes operators, by signing their certificates; recording one here only lets
it be listed and revoked. What these functions do they do in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, insert, select, update

from controller import clock
from controller.audit.log import INSTALLATION, append
from controller.db.schema import certificates, operators
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import IdentityError, OperatorIdentity, Role, believe, read_certificate
from protocol.ids import TenantId

ALL = "all"


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator. Times are UTC, the certificate is DER."""

    identity: OperatorIdentity
    not_after: datetime
    revoked_at: datetime | None
    certificate: bytes


def record(
    connection: Connection,
    certificate: x509.Certificate,
    *,
    root: x509.Certificate,
    actor: str,
    now: datetime,
) -> Operator:
    """Make an operator known by a certificate that the root signed.

    A known operator's new certificate, as after a year, takes the place of the old one.
    Raises INVALID for a certificate that proves no operator, and ALREADY_EXISTS
    for the name of somebody who was revoked: revocation is by name.
    """
    try:
        identity = believe(certificate, root=root, issuing=(), now=now)
    except IdentityError as error:
        raise InvalidError(f"this certificate makes nobody an operator: {error}") from error
    key = certificate.public_key()
    if not isinstance(identity, OperatorIdentity) or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidError("this is not an operator's certificate")
    known = connection.execute(
        select(operators.c.id, operators.c.revoked_at).where(operators.c.name == identity.name)
    ).one_or_none()
    if known is not None and known.revoked_at is not None:
        raise SteadError(
            f"{identity.name} was revoked; give the operator another name",
            code=Code.ALREADY_EXISTS,
        )
    operator_id = clock.new_id("op") if known is None else known.id
    shown = certificate.public_bytes(Encoding.DER)
    values = {
        "role": identity.role.value,
        "scope": ALL if identity.tenants is None else ",".join(sorted(identity.tenants)),
        "certificate": shown,
    }
    if known is None:
        connection.execute(
            insert(operators),
            {"id": operator_id, "name": identity.name, "created_at": now, **values},
        )
    else:
        connection.execute(update(operators).where(operators.c.id == operator_id).values(**values))
    _record_certificate(connection, operator_id, certificate, now)
    append(
        connection,
        INSTALLATION,
        actor,
        "operator_added",
        {"name": identity.name, "role": values["role"], "scope": values["scope"]},
        now,
    )
    return Operator(identity, certificate.not_valid_after_utc, None, shown)


def read_shown(der: bytes) -> x509.Certificate:
    """Read a certificate that is to be recorded; INVALID when it is none.

    Not the error of a caller's own certificate, which would say that the caller is unknown.
    """
    try:
        return read_certificate(der)
    except IdentityError as error:
        raise InvalidError(f"{error}; send it in DER") from error


def listed(connection: Connection, caller: OperatorIdentity) -> list[Operator]:
    """Operators by name: those who act in the caller's tenants and nowhere else, and those
    who act in all.
    """
    rows = connection.execute(select(operators).order_by(operators.c.name))
    known = [
        Operator(
            OperatorIdentity(row.name, Role(row.role), _scope(row.scope)),
            x509.load_der_x509_certificate(row.certificate).not_valid_after_utc,
            row.revoked_at,
            row.certificate,
        )
        for row in rows
    ]
    return [operator for operator in known if _shown_to(caller, operator.identity)]


def revoke(connection: Connection, name: str, *, actor: str, now: datetime) -> OperatorIdentity:
    """Note that an operator is revoked, and return who it is.

    Revoking again changes nothing. The caller tells `Trust` once this is durable. Raises
    PRECONDITION for the last administrator of all tenants: nobody could add another.
    """
    row = connection.execute(select(operators).where(operators.c.name == name)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no operator {name[:80]!r}; see `stead operator ls`")
    if row.revoked_at is None:
        _refuse_last(connection, row.name)
        connection.execute(update(operators).where(operators.c.id == row.id).values(revoked_at=now))
        append(connection, INSTALLATION, actor, "operator_revoked", {"name": name}, now)
    return OperatorIdentity(row.name, Role(row.role), _scope(row.scope))


def _refuse_last(connection: Connection, name: str) -> None:
    administrators = set(
        connection.scalars(
            select(operators.c.name).where(
                operators.c.role == Role.ADMIN.value,
                operators.c.scope == ALL,
                operators.c.revoked_at.is_(None),
            )
        )
    )
    if administrators == {name}:
        raise SteadError(
            f"{name} is the last administrator of all tenants; add another one first, with "
            "`stead operator add`",
            code=Code.PRECONDITION,
        )


def known_among(connection: Connection, names: Sequence[str]) -> set[str]:
    """Which of these names were ever recorded here."""
    return set(connection.scalars(select(operators.c.name).where(operators.c.name.in_(names))))


def revoked_names(connection: Connection) -> list[str]:
    """Names that are not believed, whatever the root signed for them."""
    return list(
        connection.scalars(select(operators.c.name).where(operators.c.revoked_at.is_not(None)))
    )


def _record_certificate(
    connection: Connection, operator_id: str, certificate: x509.Certificate, now: datetime
) -> None:
    serial = f"{certificate.serial_number:x}"
    if connection.scalar(select(certificates.c.serial).where(certificates.c.serial == serial)):
        return
    connection.execute(
        insert(certificates),
        {
            "serial": serial,
            "operator_id": operator_id,
            "issued_at": now,
            "not_after": certificate.not_valid_after_utc,
        },
    )


def _shown_to(caller: OperatorIdentity, other: OperatorIdentity) -> bool:
    return caller.tenants is None or other.tenants is None or other.tenants <= caller.tenants


def _scope(text: str) -> frozenset[TenantId] | None:
    return None if text == ALL else frozenset(TenantId(part) for part in text.split(","))
