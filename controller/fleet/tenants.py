"""Tenants: added and listed, in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, insert, select

from controller.audit.log import INSTALLATION, append
from controller.db.schema import machines, tenants
from controller.fleet.scope import require_whole, visible
from controller.fleet.tenant_keys import RECOVERY_KEY_BYTES, first
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import OperatorIdentity
from protocol.ids import TenantId, check_id, check_name

DEDUP_SCOPE = "tenant"
"""Chunks are shared among a tenant's machines and never beyond."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant with the number of its machines."""

    id: TenantId
    name: str
    recovery_key: bytes
    created_at: datetime
    machines: int


def add(
    connection: Connection,
    operator: OperatorIdentity,
    *,
    tenant_id: str,
    name: str,
    recovery_key: bytes,
    now: datetime,
) -> Tenant:
    """Add a tenant; INVALID, or ALREADY_EXISTS for an id or a name that is taken.

    The same act again, id, name and key alike, answers as the first time: the answer
    may have been lost on its way.
    """
    check_id("tn", tenant_id)
    check_name(name, what="tenant's name")
    if len(recovery_key) != RECOVERY_KEY_BYTES:
        raise InvalidError(f"a recovery key has {RECOVERY_KEY_BYTES} bytes")
    require_whole(operator)
    row = connection.execute(
        select(tenants).where((tenants.c.id == tenant_id) | (tenants.c.name == name))
    ).first()
    if row is not None:
        if (row.id, row.name, row.recovery_public) == (tenant_id, name, recovery_key):
            return Tenant(TenantId(row.id), row.name, recovery_key, row.created_at, 0)
        raise SteadError(
            f"there is a tenant of the name {name} or of this id; see `stead tenant ls`",
            code=Code.ALREADY_EXISTS,
        )
    connection.execute(
        insert(tenants),
        {
            "id": tenant_id,
            "name": name,
            "recovery_public": recovery_key,
            "dedup_scope": DEDUP_SCOPE,
            "created_at": now,
        },
    )
    first(connection, TenantId(tenant_id), recovery_key, by=operator.name, now=now)
    actor = f"operator/{operator.name}"
    body = {"tenant": tenant_id, "name": name}
    append(connection, INSTALLATION, actor, "tenant_added", body, now)
    append(connection, tenant_id, actor, "tenant_added", body, now)
    return Tenant(TenantId(tenant_id), name, recovery_key, now, 0)


def listed(connection: Connection, operator: OperatorIdentity) -> list[Tenant]:
    """The tenants that the operator may see, by name."""
    count = select(func.count()).where(machines.c.tenant_id == tenants.c.id).scalar_subquery()
    rows = connection.execute(
        select(tenants, count.label("machines"))
        .where(visible(tenants.c.id, operator))
        .order_by(tenants.c.name)
    )
    return [
        Tenant(TenantId(row.id), row.name, row.recovery_public or b"", row.created_at, row.machines)
        for row in rows
    ]
