"""What every way in ends with: a machine in the database, and a certificate for its key.

In the caller's transaction, so that a token is spent if and only if a machine was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Row, func, insert, select

from controller.authority.authority import Authority
from controller.authority.failures import EnrollmentRefusedError
from controller.authority.holders import ACTIVE
from controller.authority.trust import TOLD
from controller.db.schema import certificates, machines
from controller.fleet.machines import BARRED
from controller.fleet.names import free_name, name_from
from controller.fleet.scope import machine_row
from protocol.codec import to_ms
from protocol.errors import Code, InvalidError
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, TenantId, machine_of_key

MOST_AN_HOUR = 60
"""Certificates of one machine: whoever asks on and on would fill the database."""

_LONGEST_TEXT = 253


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a machine gets. `chain` is DER: its certificate, then the authority's."""

    identity: MachineIdentity
    name: str
    chain: tuple[bytes, ...]
    sealed_bundle: bytes
    key: bytes
    """The hash of the machine's key."""
    waiting: bool = False
    """It is a clone that nobody approved yet."""


def read_signing_request(der: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a PKCS#10 request that its own key signed; INVALID otherwise.

    Subject and extensions are not looked at: they are the controller's to choose.
    """
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise InvalidError("the signing request cannot be read; upgrade the agent") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError("a machine's key is a P-256 key; upgrade the agent")
    if not signed:
        raise InvalidError("the signing request is not signed by its own key")
    return key


def active_machine(connection: Connection, machine: MachineId) -> Row[Any]:
    """The machine's row; UNKNOWN_MACHINE for none, and REVOKED and the like for one shut out."""
    row = machine_row(connection, machine)
    if row is None:
        raise EnrollmentRefusedError(
            "the controller does not know this machine; enroll it again with a new token",
            code=Code.UNKNOWN_MACHINE,
        )
    if row.state in BARRED:
        code = BARRED[row.state]
        raise EnrollmentRefusedError(TOLD[code], code=code, tenant=row.tenant_id)
    return row


def new_machine(
    connection: Connection,
    tenant: TenantId,
    digest: bytes,
    hostname: str,
    agent_version: str,
    now: datetime,
    *,
    state: str = ACTIVE,
    clone_of: str | None = None,
) -> Row[Any]:
    """A machine with this key; ALREADY_EXISTS for a key that a machine has, or had."""
    if connection.scalar(select(machines.c.id).where(machines.c.public_key_hash == digest)):
        raise EnrollmentRefusedError(
            "a machine has this key already; enroll with a new key",
            code=Code.ALREADY_EXISTS,
            tenant=tenant,
        )

    def taken(name: str) -> bool:
        return bool(
            connection.scalar(
                select(machines.c.id).where(machines.c.tenant_id == tenant, machines.c.name == name)
            )
        )

    machine_id = machine_of_key(digest, at_ms=to_ms(now))
    connection.execute(
        insert(machines),
        {
            "id": machine_id,
            "tenant_id": tenant,
            "name": free_name(name_from(hostname), taken),
            "state": state,
            "public_key_hash": digest,
            "hostname": hostname[:_LONGEST_TEXT],
            "agent_version": agent_version[:_LONGEST_TEXT],
            "enrolled_at": now,
            "clone_of": clone_of,
        },
    )
    return active_machine(connection, machine_id)


def certify(
    connection: Connection,
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    identity: MachineIdentity,
    now: datetime,
) -> tuple[bytes, ...]:
    """A certificate and the authority's, in DER; LIMIT for a machine that asks on and on."""
    recent = connection.scalar(
        select(func.count())
        .select_from(certificates)
        .where(
            certificates.c.machine_id == identity.machine,
            certificates.c.issued_at > now - timedelta(hours=1),
        )
    )
    if (recent or 0) >= MOST_AN_HOUR:
        raise EnrollmentRefusedError(
            f"this machine was certified {recent} times within an hour; it asks again later",
            code=Code.LIMIT,
            tenant=identity.tenant,
        )
    chain = authority.certify(public_key, identity, now)
    leaf = chain[0]
    connection.execute(
        insert(certificates),
        {
            "serial": f"{leaf.serial_number:x}",
            "machine_id": identity.machine,
            "tenant_id": TenantId(identity.tenant),
            "issued_at": now,
            "not_after": leaf.not_valid_after_utc,
        },
    )
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
