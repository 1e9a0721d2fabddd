"""What a caller may see: rows of the tenants in its scope, and no word of any other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, true

from controller.db.schema import machines, tenants
from protocol.errors import DeniedError, NotFoundError
from protocol.identity import OperatorIdentity
from protocol.ids import MachineId, TenantId


def visible(column: ColumnElement[Any], operator: OperatorIdentity) -> ColumnElement[bool]:
    """A condition on a column of tenant ids: the operator may see the row."""
    return true() if operator.tenants is None else column.in_(sorted(operator.tenants))


def require_tenant(connection: Connection, operator: OperatorIdentity, tenant_id: str) -> TenantId:
    """The tenant's id when there is one that the operator may see, NOT_FOUND otherwise.

    Whether a tenant exists beyond the operator's scope is not to be learnt.
    """
    condition = visible(tenants.c.id, operator)
    found = connection.scalar(select(tenants.c.id).where(tenants.c.id == tenant_id, condition))
    if found is None:
        raise NotFoundError(f"there is no tenant {tenant_id[:80]!r}; see `stead tenant ls`")
    return TenantId(found)


def tenants_meant(
    connection: Connection, operator: OperatorIdentity, tenant_id: str
) -> list[TenantId]:
    """The tenant that is named, or for an empty name all that the operator may see."""
    if tenant_id:
        return [require_tenant(connection, operator, tenant_id)]
    seen = select(tenants.c.id).where(visible(tenants.c.id, operator))
    return [TenantId(one) for one in connection.scalars(seen.order_by(tenants.c.name))]


def require_whole(operator: OperatorIdentity) -> OperatorIdentity:
    """Return an operator whose scope is every tenant, raise DENIED otherwise.

    What belongs to the installation as a whole is not for those who see a part of it.
    """
    if operator.tenants is not None:
        raise DeniedError(
            f"{operator.name} sees some tenants only; this takes an operator of all of them"
        )
    return operator


def require_machine(
    connection: Connection, operator: OperatorIdentity, machine_id: str
) -> Row[Any]:
    """The machine's row when the operator may see it, NOT_FOUND otherwise."""
    condition = visible(machines.c.tenant_id, operator)
    row = connection.execute(
        select(machines).where(machines.c.id == machine_id, condition)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no machine {machine_id[:80]!r}; see `stead machine ls`")
    return row


def machine_row(connection: Connection, machine: MachineId) -> Row[Any] | None:
    """The machine's row, for the machine itself."""
    return connection.execute(select(machines).where(machines.c.id == machine)).one_or_none()
