"""Let machines in by a token, in one transaction with the use of it that is spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Row, insert, select

from controller.audit.log import append
from controller.authority import tokens
from controller.authority.admission import Enrolled, active_machine, certify, new_machine
from controller.authority.authority import Authority
from controller.db.schema import enrollments, machine_tags
from protocol.identity import MachineIdentity, key_hash
from protocol.ids import MachineId


@dataclass(frozen=True, slots=True, repr=False)
class Application:
    """What a machine shows to be let in."""

    token_id: str
    secret: bytes
    public_key: ec.EllipticCurvePublicKey
    hostname: str
    agent_version: str


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
        machine = active_machine(connection, MachineId(before))
        event = "machine_enrolled_again"
    identity = MachineIdentity(token.tenant, MachineId(machine.id))
    chain = certify(connection, authority, application.public_key, identity, now)
    body = {"machine": machine.id, "name": machine.name, "token": token.id}
    append(connection, token.tenant, f"machine/{machine.id}", event, body, now)
    return Enrolled(identity, machine.name, chain, token.bundle, digest)


def _make_machine(
    connection: Connection,
    token: tokens.UsableToken,
    application: Application,
    digest: bytes,
    now: datetime,
) -> Row[Any]:
    made = new_machine(
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
