"""The list of who is not believed that the root signed, as the controller keeps and tells it.

The controller can keep it back and cannot make one; see `protocol.revocation`. What these
functions do they do in the caller's transaction.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from sqlalchemy import Connection, insert, select, update

from controller.audit.log import INSTALLATION, append
from controller.db.schema import installation
from protocol.codec import read_revocations
from protocol.revocation import NO_REVOCATIONS, Revocations, newer

TOPIC = "revocations"
"""What `controller.jobs.feed` wakes when the list changes."""


def kept(connection: Connection) -> bytes:
    """The newest list as the root signed it; empty when there is none."""
    query = select(installation.c.value).where(installation.c.key == TOPIC)
    return connection.scalar(query) or b""


def in_force(connection: Connection, root: x509.Certificate) -> Revocations:
    """The newest list, read."""
    data = kept(connection)
    return read_revocations(data, root) if data else NO_REVOCATIONS


def names_in(revocations: Revocations) -> list[str]:
    """Whom a list names, each once."""
    return sorted({one.name for one in revocations.operators})


def take(
    connection: Connection, data: bytes, *, root: x509.Certificate, actor: str, now: datetime
) -> Revocations | None:
    """Keep a list when it is newer; None for the one in force.

    BAD_SIGNATURE for one that this root did not sign, REPLAYED for an old one. The caller
    revokes whom it names, and tells `Trust` once this is durable.
    """
    offered = read_revocations(data, root)
    if not newer(in_force(connection, root), offered):
        return None
    known = connection.scalar(select(installation.c.key).where(installation.c.key == TOPIC))
    if known is None:
        connection.execute(insert(installation), {"key": TOPIC, "value": data})
    else:
        connection.execute(
            update(installation).where(installation.c.key == TOPIC).values(value=data)
        )
    body = {
        "version": offered.version,
        "operators": names_in(offered),
        "authorities": [one.name for one in offered.authorities],
    }
    append(connection, INSTALLATION, actor, "revocations_published", body, now)
    return offered
