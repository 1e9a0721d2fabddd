"""A newer certificate for the same machine and the same key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from controller.audit.log import append
from controller.authority.admission import active_machine, certify
from controller.authority.authority import Authority
from controller.authority.proven import prove
from protocol.identity import renewal_bytes


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
    signed = renewal_bytes(certificate, requested_at_ms)
    proven = prove(authority, certificate, requested_at_ms, signature, signed, now)
    identity = proven.identity
    machine = active_machine(connection, identity.machine)
    proven.check_key(machine)
    chain = certify(connection, authority, proven.key, identity, now)
    body = {"machine": machine.id, "expired_for_s": max(0, int(proven.over_since.total_seconds()))}
    append(connection, identity.tenant, f"machine/{machine.id}", "certificate_renewed", body, now)
    return chain
