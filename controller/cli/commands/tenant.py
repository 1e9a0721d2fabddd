"""`stead tenant`: tenants, and the keys that open their backups."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import rich_click as click

from controller import clock
from controller.authority.durable import write_durably
from controller.cli.app import App
from controller.cli.choice import tenant_named
from controller.cli.emit import emit, emit_one, from_wire_ms, note, output_option
from controller.cli.keyring import new_tenant_key
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import TenantId, check_name
from protocol.v1.operator_pb2 import AddTenantRequest, ListTenantsRequest, Tenant
from protocol.vault.keys import (
    TenantKey,
    decode_tenant_key,
    encode_tenant_key,
    parse_paper_key,
    render_paper_key,
)


@click.group(epilog="Example: stead tenant add acme")
def command() -> None:
    """Tenants and their keys."""


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
    file = connection.keyring.save(tenant_id, key)
    request = AddTenantRequest(
        tenant_id=tenant_id, name=name, recovery_key=key.secret.recovery_public
    )
    added = connection.tenants.AddTenant(request).tenant
    emit_one(_row(added, has_key=True), output)
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
    emit_one(_row(found, has_key=connection.keyring.has(TenantId(found.tenant_id))), output)


@command.group(epilog="Example: stead tenant key export acme --paper")
def key() -> None:
    """The recovery key of a tenant: who holds it can read every backup."""


@key.command(epilog="Example: stead tenant key export acme --paper")
@click.argument("tenant")
@click.option("--paper", is_flag=True, help="12 groups of 5 characters, to be written down.")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="Write the key file there (mode 0600)."
)
@click.pass_obj
def export(app: App, tenant: str, paper: bool, target: Path | None) -> None:
    """Print a tenant's recovery key, or copy it into a file."""
    found = tenant_named(app.connection, tenant)
    held = app.connection.keyring.load(TenantId(found.tenant_id))
    if paper and target is None:
        click.echo(render_paper_key(held))
        return
    data = f"{render_paper_key(held)}\n".encode() if paper else encode_tenant_key(held)
    if target is not None:
        _write_new(target, data)
        note(f"The recovery key of {found.name} is in {target}. Keep it safe and secret.")
        return
    if sys.stdout.isatty():
        raise InvalidError("a key file is not for a terminal: add --paper, or --to FILE")
    sys.stdout.buffer.write(data)


@key.command("import", epilog="Example: stead tenant key import acme acme.key")
@click.argument("tenant")
@click.argument("file", type=click.File("rb"), default="-")
@click.pass_obj
def import_(app: App, tenant: str, file: Any) -> None:
    """Take a tenant's recovery key into this profile: a key file, or what is on paper.

    FILE is standard input when it is left out.
    """
    found = tenant_named(app.connection, tenant)
    if file.isatty():
        note("Type the recovery key, then Enter and Ctrl-D:")
    held = read_key(file.read(4096))
    if held.secret.recovery_public != found.recovery_key:
        raise InvalidError(f"this is the recovery key of another tenant, not of {found.name}")
    saved = app.connection.keyring.save(TenantId(found.tenant_id), held)
    note(f"The recovery key of {found.name} is in {saved}.")


def read_key(data: bytes) -> TenantKey:
    """A recovery key from a key file or from what was written on paper; INVALID otherwise."""
    try:
        return decode_tenant_key(data)
    except InvalidError:
        if not data.isascii():
            raise
        return parse_paper_key(data.decode())


def _write_new(target: Path, data: bytes) -> None:
    try:
        write_durably(target, data)
    except FileExistsError:
        raise SteadError(f"{target} is there already", code=Code.ALREADY_EXISTS) from None
    except OSError as error:
        raise InvalidError(f"{target} cannot be written: {error.strerror}") from error


def _row(tenant: Tenant, *, has_key: bool) -> dict[str, Any]:
    return {
        "name": tenant.name,
        "id": tenant.tenant_id,
        "machines": tenant.machines,
        "created_at": from_wire_ms(tenant.created_at_ms),
        "recovery_key": tenant.recovery_key,
        "key_here": has_key,
    }
