"""Make a clone a machine of its own, which waits until an operator approves it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from controller.audit.log import append
from controller.authority import holders
from controller.authority.admission import (
    Enrolled,
    active_machine,
    certify,
    new_machine,
    read_signing_request,
)
from controller.authority.authority import Authority
from controller.authority.failures import EnrollmentRefusedError
from controller.authority.holders import ACTIVE, PARKED, WAITING
from controller.authority.proven import prove
from controller.db.schema import machines
from controller.fleet.scope import machine_row
from protocol.codec import decode_holder
from protocol.errors import Code
from protocol.identity import MachineIdentity, key_hash, rekey_bytes
from protocol.ids import MachineId, TenantId

MOST_WAITING = 8
"""Clones of one machine that may wait for approval at a time."""

CLONEABLE = frozenset({ACTIVE, PARKED})


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
    signed = rekey_bytes(certificate, signing_request, requested_at_ms)
    proven = prove(authority, certificate, requested_at_ms, signature, signed, now)
    identity = proven.identity
    machine = machine_row(connection, identity.machine)
    if machine is None or machine.state not in CLONEABLE:
        machine = active_machine(connection, identity.machine)
        raise EnrollmentRefusedError(
            f"{machine.name} is {machine.state} itself; approve or retire it first: see "
            "`stead machine ls`",
            code=Code.PRECONDITION,
            tenant=identity.tenant,
        )
    proven.check_key(machine)
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
    chain = certify(connection, authority, public_key, new, now)
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
    made = new_machine(
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
