"""Let machines in: a token becomes a certificate, a certificate becomes a newer one.

Each is one transaction, so a token is spent if and only if a machine was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Row, func, insert, select

from controller import clock
from controller.audit.log import append
from controller.authority import holders, tokens
from controller.authority.authority import Authority
from controller.authority.failures import EnrollmentRefusedError
from controller.authority.holders import ACTIVE, PARKED, WAITING
from controller.authority.trust import TOLD
from controller.db.schema import certificates, enrollments, machine_tags, machines
from controller.fleet.machines import BARRED
from controller.fleet.names import free_name, name_from
from controller.fleet.scope import machine_row
from protocol.codec import decode_holder
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import (
    MachineIdentity,
    believe,
    key_hash,
    read_certificate,
    rekey_bytes,
    renewal_bytes,
)
from protocol.ids import MachineId, TenantId

RENEWABLE = timedelta(days=400)
CLOCK_TOLERANCE = timedelta(minutes=10)
MOST_WAITING = 8
"""Clones of one machine that may wait for approval at a time."""

CLONEABLE = frozenset({ACTIVE, PARKED})
_EPOCH_LIMIT_MS = 1 << 48
_LONGEST_TEXT = 253


@dataclass(frozen=True, slots=True, repr=False)
class Application:
    """What a machine shows to be let in."""

    token_id: str
    secret: bytes
    public_key: ec.EllipticCurvePublicKey
    hostname: str
    agent_version: str


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


def enroll(
    connection: Connection, authority: Authority, application: Application, now: datetime
) -> Enrolled:
    """Spend a use of the token on a new machine, or answer again for the same key.

    Raises TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_USED; ALREADY_EXISTS for a key that a
    machine has already; REVOKED when the machine that asks again was revoked.
    """
    row = tokens.check(connection, application.token_id, application.secret)
    digest = key_hash(application.public_key)
    before = connection.scalar(
        select(enrollments.c.machine_id).where(
            enrollments.c.token_id == row.id, enrollments.c.public_key_hash == digest
        )
    )
    token = tokens.usable(row)
    if before is None:
        tokens.spend(connection, row, now=now)
        machine = _make_machine(connection, token, application, digest, now)
        event = "machine_enrolled"
    else:
        machine = _active(connection, MachineId(before))
        event = "machine_enrolled_again"
    identity = MachineIdentity(token.tenant, MachineId(machine.id))
    chain = _certify(connection, authority, application.public_key, identity, now)
    body = {"machine": machine.id, "name": machine.name, "token": token.id}
    append(connection, token.tenant, f"machine/{machine.id}", event, body, now)
    return Enrolled(identity, machine.name, chain, token.bundle, digest)


def renew(
    connection: Connection,
    authority: Authority,
    *,
    certificate: bytes,
    requested_at_ms: int,
    signature: bytes,
    now: datetime,
) -> tuple[bytes, ...]:
    """A newer certificate for the same machine and key, as a chain in DER.

    The present one may have ended up to 400 days ago: a laptop that lay in a drawer
    comes back by itself. Raises CLOCK_SKEW, EXPIRED, REVOKED, UNKNOWN_MACHINE,
    BAD_SIGNATURE, UNAUTHENTICATED.
    """
    _check_clock(requested_at_ms, now)
    identity, key, over_since = _told(authority, certificate, now)
    _check_signed(key, signature, renewal_bytes(certificate, requested_at_ms), identity.tenant)
    _check_age(over_since, identity.tenant)
    machine = _active(connection, identity.machine)
    _check_key(machine, identity, key)
    chain = _certify(connection, authority, key, identity, now)
    body = {"machine": machine.id, "expired_for_s": max(0, int(over_since.total_seconds()))}
    append(connection, identity.tenant, f"machine/{machine.id}", "certificate_renewed", body, now)
    return chain


def _told(
    authority: Authority,
    certificate: bytes,
    now: datetime,
) -> tuple[MachineIdentity, ec.EllipticCurvePublicKey, timedelta]:
    """The machine that a certificate was made for, its key, and since when it is over.

    An authority that is distrusted counts here: its word is not needed, since the machine is
    known by its key (`_check_key`), and the machines that it certified come back this way.
    """
    leaf = read_certificate(certificate)
    over_since = now - leaf.not_valid_after_utc
    # Whether the authority vouched for it is asked for its last moment when that is past.
    then = now if over_since < timedelta() else leaf.not_valid_after_utc - timedelta(seconds=1)
    identity = believe(leaf, root=authority.root, issuing=authority.believed, now=then)
    key = leaf.public_key()
    if not isinstance(identity, MachineIdentity) or not isinstance(key, ec.EllipticCurvePublicKey):
        raise SteadError("only machines renew their certificates here", code=Code.UNAUTHENTICATED)
    return identity, key, over_since


def _check_signed(
    key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, tenant: TenantId
) -> None:
    try:
        key.verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise EnrollmentRefusedError(
            "the request is not signed by the certificate's key",
            code=Code.BAD_SIGNATURE,
            tenant=tenant,
        ) from None


def _check_key(
    machine: Row[Any], identity: MachineIdentity, key: ec.EllipticCurvePublicKey
) -> None:
    """Who holds an issuing authority's key can certify any key, and does not become a machine."""
    if machine.tenant_id != identity.tenant or machine.public_key_hash != key_hash(key):
        raise EnrollmentRefusedError(
            "the certificate is not for this machine's present key; enroll it again with a new "
            "token",
            code=Code.UNAUTHENTICATED,
            tenant=identity.tenant,
        )


def _check_age(over_since: timedelta, tenant: TenantId) -> None:
    if over_since > RENEWABLE:
        raise EnrollmentRefusedError(
            f"the certificate ended {over_since.days} days ago, more than {RENEWABLE.days}; "
            "enroll this machine again with a new token",
            code=Code.EXPIRED,
            tenant=tenant,
        )


def rekey(
    connection: Connection,
    authority: Authority,
    *,
    certificate: bytes,
    requested_at_ms: int,
    signature: bytes,
    signing_request: bytes,
    holder: bytes,
    hostname: str,
    agent_version: str,
    now: datetime,
) -> Enrolled:
    """Make a machine of its own of a clone; it gets no tags, no backups, and waits.

    Raises what `renew` raises; PRECONDITION for a holder that is no clone; LIMIT when too
    many clones of one machine wait already.
    """
    _check_clock(requested_at_ms, now)
    identity, key, over_since = _told(authority, certificate, now)
    signed = rekey_bytes(certificate, signing_request, requested_at_ms)
    _check_signed(key, signature, signed, identity.tenant)
    _check_age(over_since, identity.tenant)
    machine = machine_row(connection, identity.machine)
    if machine is None or machine.state not in CLONEABLE:
        machine = _active(connection, identity.machine)
        raise EnrollmentRefusedError(
            f"{machine.name} is {machine.state} itself; approve or retire it first: see "
            "`stead machine ls`",
            code=Code.PRECONDITION,
            tenant=identity.tenant,
        )
    _check_key(machine, identity, key)
    public_key = read_signing_request(signing_request)
    digest = key_hash(public_key)
    made = connection.execute(
        select(machines).where(
            machines.c.clone_of == machine.id, machines.c.public_key_hash == digest
        )
    ).one_or_none()
    if made is None:
        if not holders.is_clone(connection, identity.machine, decode_holder(holder), now):
            raise EnrollmentRefusedError(
                "this machine is not known to be a clone; only a clone becomes a new machine",
                code=Code.PRECONDITION,
                tenant=identity.tenant,
            )
        made = _make_clone(connection, machine, digest, hostname, agent_version, now)
    new = MachineIdentity(identity.tenant, MachineId(made.id))
    chain = _certify(connection, authority, public_key, new, now)
    return Enrolled(new, made.name, chain, b"", digest, waiting=made.state == WAITING)


def _make_clone(
    connection: Connection,
    machine: Row[Any],
    digest: bytes,
    hostname: str,
    agent_version: str,
    now: datetime,
) -> Row[Any]:
    waiting = connection.scalar(
        select(func.count())
        .select_from(machines)
        .where(machines.c.clone_of == machine.id, machines.c.state == WAITING)
    )
    if (waiting or 0) >= MOST_WAITING:
        raise EnrollmentRefusedError(
            f"{waiting} clones of {machine.name} wait already; approve or retire them first: "
            "see `stead machine ls`",
            code=Code.LIMIT,
            tenant=machine.tenant_id,
        )
    made = _new_row(
        connection,
        TenantId(machine.tenant_id),
        digest,
        hostname,
        agent_version,
        now,
        state=WAITING,
        clone_of=machine.id,
    )
    body = {"machine": made.id, "name": made.name, "clone_of": machine.id}
    append(connection, machine.tenant_id, f"machine/{made.id}", "clone_rekeyed", body, now)
    return made


def _check_clock(requested_at_ms: int, now: datetime) -> None:
    now_ms = int(now.timestamp() * 1000)
    if abs(requested_at_ms - now_ms) <= CLOCK_TOLERANCE.total_seconds() * 1000:
        return
    theirs = "a time beyond all calendars"
    if 0 <= requested_at_ms < _EPOCH_LIMIT_MS:
        moment = datetime(1970, 1, 1, tzinfo=now.tzinfo) + timedelta(milliseconds=requested_at_ms)
        theirs = f"{moment:%Y-%m-%d %H:%M:%S}Z"
    raise EnrollmentRefusedError(
        f"this machine's clock says {theirs} and the controller's {now:%Y-%m-%d %H:%M:%S}Z; set "
        "the one that is wrong",
        code=Code.CLOCK_SKEW,
    )


def _active(connection: Connection, machine: MachineId) -> Row[Any]:
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


def _make_machine(
    connection: Connection,
    token: tokens.UsableToken,
    application: Application,
    digest: bytes,
    now: datetime,
) -> Row[Any]:
    made = _new_row(
        connection, token.tenant, digest, application.hostname, application.agent_version, now
    )
    machine_id = MachineId(made.id)
    connection.execute(
        insert(enrollments),
        {
            "token_id": token.id,
            "public_key_hash": digest,
            "tenant_id": token.tenant,
            "machine_id": machine_id,
            "at": now,
        },
    )
    for tag in token.tags:
        connection.execute(
            insert(machine_tags),
            {"machine_id": machine_id, "tag": tag, "tenant_id": token.tenant},
        )
    return made


def _new_row(
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

    machine_id = MachineId(clock.new_id("mc"))
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
    return _active(connection, machine_id)


def _certify(
    connection: Connection,
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    identity: MachineIdentity,
    now: datetime,
) -> tuple[bytes, ...]:
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
