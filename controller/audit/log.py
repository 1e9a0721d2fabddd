"""The audit log in the database: an entry is written in the transaction of the act it records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement, Connection, insert, or_, select

from controller.audit.chain import EMPTY, Entry, Head, entry_hash
from controller.audit.wanted import Wanted
from controller.db.micros import from_micros, to_micros
from controller.db.schema import audit

INSTALLATION = ""
"""The tenant of what concerns the installation as a whole."""

MOST_BYTES = 4 * 1024 * 1024
"""Of the bodies in a page, counted in characters: four times that fits in a message."""

AT_ONCE = 100
"""Rows that are in memory beside those that are returned."""


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


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, in order. `cut`: there are fewer than wanted, since they are so large."""

    entries: list[Entry]
    cut: bool = False


def entries(
    connection: Connection, tenant_id: str, after: int = 0, limit: int = 1000
) -> list[Entry]:
    """Up to `limit` entries that follow number `after`, as far as they fit into a page."""
    return page_of(connection, tenant_id, after=after, limit=limit).entries


def page_of(
    connection: Connection,
    tenant_id: str,
    *,
    after: int = 0,
    before: int | None = None,
    limit: int,
    wanted: Wanted | None = None,
    newest: bool = False,
    most_bytes: int = MOST_BYTES,
) -> Page:
    """Up to `limit` entries between these numbers that are wanted.

    `newest` gives the last ones instead of the first. There are fewer, but one at least, where
    their bodies come to more than `most_bytes`: an order to a large fleet names each machine.
    """
    query = select(audit).where(audit.c.tenant_id == tenant_id, audit.c.seq > after)
    if before is not None:
        query = query.where(audit.c.seq < before)
    if wanted is not None:
        query = query.where(*_conditions(wanted))
    by_number = audit.c.seq.desc() if newest else audit.c.seq
    found: list[Entry] = []
    left, cut = most_bytes, False
    some = query.order_by(by_number).limit(limit).execution_options(yield_per=AT_ONCE)
    with connection.execute(some) as rows:
        for row in rows.mappings():
            entry = Entry(**row)
            left -= len(entry.body)
            if left < 0 and found:
                cut = True
                break
            found.append(entry)
    return Page(found[::-1] if newest else found, cut)


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    """The same as `Wanted.fits`, for the database."""
    found: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(audit.c.at >= wanted.since)
    if wanted.until is not None:
        found.append(audit.c.at < wanted.until)
    if wanted.event:
        found.append(audit.c.event == wanted.event)
    if wanted.actor:
        # Not by LIKE, which takes ANN for ann in some databases.
        kinds = ("", "operator/", "machine/")
        found.append(audit.c.actor.in_([kind + wanted.actor for kind in kinds]))
    if wanted.machine:
        by_it = audit.c.actor == f"machine/{wanted.machine}"
        # Of ids in a body, as of all in it, the quotes are part.
        about_it = audit.c.body.contains(f'"{wanted.machine}"', autoescape=True)
        found.append(or_(by_it, about_it))
    return found
