"""`stead tenant`: tenants, and the keys that open their backups."""

from __future__ import annotations

from typing import Any

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.commands import tenant_key
from controller.cli.operator.choice import tenant_named
from controller.cli.operator.keyring import new_tenant_key
from controller.cli.operator.tenant_keys import name_of_key
from controller.cli.output.emit import emit, emit_one, from_wire_ms, note, output_option
from protocol.errors import Code, SteadError
from protocol.ids import TenantId, check_name
from protocol.v1.operator_pb2 import AddTenantRequest, ListTenantsRequest, Tenant
from protocol.vault.epochs import TenantKeys


@click.group(epilog="Example: stead tenant add acme")
def command() -> None:
    """Tenants and their keys."""


command.add_command(tenant_key.command, "key")


@command.command(epilog="Example: stead tenant add acme")
@click.argument("name")
@output_option
@click.pass_obj
def add(app: App, name: str, output: str) -> None:
    """Add a tenant and make its recovery key, which stays in this profile."""
    check_name(name, what="tenant's name")
    connection = app.connection
    if any(t.name == name for t in connection.tenants.ListTenants(ListTenantsRequest()).tenants):
        raise SteadError(
            f"there is a tenant {name} already; see `stead tenant ls`", code=Code.ALREADY_EXISTS
        )
    tenant_id = TenantId(clock.new_id("tn"))
    key = new_tenant_key()
    # Before the call: a tenant whose key was lost on the way could never be restored.
    file = connection.keyring.save(tenant_id, TenantKeys((key,)))
    request = AddTenantRequest(
        tenant_id=tenant_id, name=name, recovery_key=key.secret.recovery_public
    )
    added = connection.tenants.AddTenant(request).tenant
    _show(added, output, has_key=True)
    note(
        f"The recovery key is in {file}, and nowhere else. Whoever loses it loses every backup "
        f"of {name}; nobody can help.\nKeep a copy in a safe place now: "
        f"stead tenant key export {name} --paper\n"
        f"Next: stead token new --tenant {name}"
    )


@command.command(epilog="Example: stead tenant ls --output json")
@output_option
@click.pass_obj
def ls(app: App, output: str) -> None:
    """List the tenants that you may see."""
    connection = app.connection
    tenants = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    rows = [_row(t, has_key=connection.keyring.has(TenantId(t.tenant_id))) for t in tenants]
    emit(
        rows,
        output,
        columns=("name", "machines", "created_at", "key_here", "id"),
        empty="there is no tenant yet; `stead tenant add NAME` makes one",
    )


@command.command(epilog="Example: stead tenant show acme")
@click.argument("tenant")
@output_option
@click.pass_obj
def show(app: App, tenant: str, output: str) -> None:
    """Show one tenant."""
    connection = app.connection
    found = tenant_named(connection, tenant)
    _show(found, output, has_key=connection.keyring.has(TenantId(found.tenant_id)))


def _show(tenant: Tenant, output: str, *, has_key: bool) -> None:
    row = _row(tenant, has_key=has_key)
    if output == "table":
        # People know a key by its name, as `tenant key ls` shows it.
        del row["recovery_key"]
    emit_one(row, output)


def _row(tenant: Tenant, *, has_key: bool) -> dict[str, Any]:
    return {
        "name": tenant.name,
        "id": tenant.tenant_id,
        "machines": tenant.machines,
        "created_at": from_wire_ms(tenant.created_at_ms),
        "key": name_of_key(tenant.recovery_key),
        "recovery_key": tenant.recovery_key,
        "key_here": has_key,
    }
