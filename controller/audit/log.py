"""The audit log in the database: an entry is written in the transaction of the act it records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, insert, select

from controller.audit.chain import EMPTY, Entry, Head, entry_hash
from controller.db.micros import from_micros, to_micros
from controller.db.schema import audit

INSTALLATION = ""
"""The tenant of what concerns the installation as a whole."""


def append(
    connection: Connection,
    tenant_id: str,
    actor: str,
    event: str,
    body: Mapping[str, object],
    at: datetime,
) -> Entry:
    """Add an entry to a tenant's log, in the caller's transaction, and return it.

    `actor` is who did it (`operator/ada`, `machine/mc_…`, `controller`), `event` what
    was done, in the past tense; `body` is what JSON can hold, and never a secret.
    """
    last = head(connection, tenant_id)
    text = msgspec.json.encode(body, order="deterministic").decode()
    # What the database gives back later is hashed, not what it was given.
    moment = from_micros(to_micros(at))
    seq = last.seq + 1
    entry = Entry(
        tenant_id=tenant_id,
        seq=seq,
        at=moment,
        actor=actor,
        event=event,
        body=text,
        previous=last.hash,
        hash=entry_hash(last.hash, tenant_id, seq, moment, actor, event, text),
    )
    connection.execute(
        insert(audit),
        {
            "tenant_id": tenant_id,
            "seq": seq,
            "at": moment,
            "actor": actor,
            "event": event,
            "body": text,
            "previous": entry.previous,
            "hash": entry.hash,
        },
    )
    return entry


def head(connection: Connection, tenant_id: str) -> Head:
    """The last entry's number and hash, locked for the transaction where that is possible."""
    row = connection.execute(
        select(audit.c.seq, audit.c.hash)
        .where(audit.c.tenant_id == tenant_id)
        .order_by(audit.c.seq.desc())
        .limit(1)
        .with_for_update()
    ).one_or_none()
    return EMPTY if row is None else Head(row.seq, row.hash)


def entries(
    connection: Connection, tenant_id: str, after: int = 0, limit: int = 1000
) -> list[Entry]:
    """Up to `limit` entries that follow number `after`, in order."""
    rows = connection.execute(
        select(audit)
        .where(audit.c.tenant_id == tenant_id, audit.c.seq > after)
        .order_by(audit.c.seq)
        .limit(limit)
    )
    return [Entry(**row) for row in rows.mappings()]
