"""Which audit logs have entries that are not signed although they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from controller.audit.checkpoints import AFTER, logs_that_grew
from controller.db.schema import audit

LATE = 3 * AFTER
"""Older entries are late: looking, and a long log before this one, take their time."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A log by its name, how many entries it has and how many of them are signed.

    There are fewer than were signed where it was cut. `since` is when the first entry that is
    not signed was written; None when it is not there.
    """

    name: str
    entries: int
    signed: int
    since: datetime | None
    reason: str


def unsigned_logs(
    connection: Connection,
    names: Mapping[str, str],
    fault_of: Callable[[str], str],
    now: datetime,
) -> list[Unsigned]:
    """The logs that are late, or that could not be signed, of those that have a name here.

    `fault_of` says why a log could not be signed when that was tried last.
    """
    found = []
    for log_id, entries, signed in logs_that_grew(connection):
        if log_id not in names:
            continue
        first = (audit.c.tenant_id == log_id, audit.c.seq == signed + 1)
        since = connection.scalar(select(audit.c.at).where(*first))
        reason = fault_of(log_id)
        if reason or since is None or now - since > LATE or since - now > timedelta(days=1):
            found.append(Unsigned(names[log_id], entries, signed, since, reason))
    return sorted(found, key=lambda one: one.name)
