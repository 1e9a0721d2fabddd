"""Remember when chunks of a tenant were lost, so that the next backups bring them back.

An agent that knows its last restore point gives only what changed since. Whoever began
before a loss is therefore told of no last point: it reads everything, asks for every
chunk, and sends what is not held any more.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from controller.db.schema import installation, vault_sessions
from controller.db.upsert import upsert

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMMITTED = "committed"


def note_loss(connection: Connection, tenant: str, at: datetime) -> None:
    """Note that chunks of the tenant may have been lost up to `at`."""
    value = str((at - _EPOCH) // timedelta(microseconds=1)).encode()
    statement = upsert(connection, installation)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}),
        {"key": _key(tenant), "value": value},
    )


def lost_at(connection: Connection, tenant: str) -> datetime | None:
    """When chunks of the tenant were lost last; None when none ever was."""
    value = connection.scalar(
        select(installation.c.value).where(installation.c.key == _key(tenant))
    )
    return None if value is None else _EPOCH + timedelta(microseconds=int(value))


def must_read_everything(connection: Connection, tenant: str, machine: str) -> bool:
    """Whether the machine has committed no backup that was begun after the last loss."""
    lost = lost_at(connection, tenant)
    if lost is None:
        return False
    begun = connection.scalar(
        select(func.max(vault_sessions.c.begun_at)).where(
            vault_sessions.c.machine_id == machine, vault_sessions.c.state == _COMMITTED
        )
    )
    return begun is None or begun <= lost


def _key(tenant: str) -> str:
    return f"vault_lost/{tenant}"
