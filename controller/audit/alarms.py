"""What machines say is wrong with the audit logs: told to operators, and written into the log.

A hostile controller would tell nobody. So it is a convenience for the honest one, and
`stead audit witness` asks the machines themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from controller.audit.log import append
from controller.db.schema import audit_alarms
from protocol.checkpoint import render_log

Alarms = Mapping[tuple[str, str], datetime]
"""Since when, by the log and the word of `protocol.checkpoint.Found`."""


def replace_alarms(
    connection: Connection, tenant: str, machine: str, alarms: Alarms, now: datetime
) -> None:
    """Keep a machine's alarms in place of those before; a new one gets an entry."""
    known = alarms_kept(connection, machine)
    connection.execute(delete(audit_alarms).where(audit_alarms.c.machine_id == machine))
    for (log, found), at in sorted(alarms.items()):
        connection.execute(
            insert(audit_alarms),
            {"machine_id": machine, "tenant_id": tenant, "log": log, "found": found, "at": at},
        )
        if (log, found) not in known:
            body = {"log": render_log(log), "found": found}
            append(connection, tenant, f"machine/{machine}", "audit_alarm_raised", body, now)


def alarms_kept(connection: Connection, machine: str) -> Alarms:
    """What a machine last said is wrong."""
    rows = connection.execute(select(audit_alarms).where(audit_alarms.c.machine_id == machine))
    return {(row.log, row.found): row.at for row in rows}


def alarms_in_words(connection: Connection) -> dict[str, str]:
    """Of each machine with alarms, what it says, in words."""
    query = select(audit_alarms).order_by(
        audit_alarms.c.machine_id, audit_alarms.c.log, audit_alarms.c.at
    )
    said: dict[str, list[str]] = {}
    for row in connection.execute(query):
        words = f"{render_log(row.log)} {row.found} at {row.at:%Y-%m-%d %H:%M}Z"
        said.setdefault(row.machine_id, []).append(words)
    return {machine: "; ".join(words) for machine, words in said.items()}
