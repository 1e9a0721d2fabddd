"""`stead tenant key`: the recovery keys of a tenant, kept and shared."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.durable import write_durably
from controller.cli.app import App
from controller.cli.commands import tenant_key_rotate
from controller.cli.operator.choice import active_machines, tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.operator.sharing import recipient_of, sender_of
from controller.cli.operator.tenant_keys import (
    all_keys,
    is_proved,
    key_row,
    listed_keys,
    merged,
    present_keys,
)
from controller.cli.output.emit import emit, note, output_option
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.ids import TenantId
from protocol.v1.operator_pb2 import (
    ListSharedKeysRequest,
    Machine,
    SharedKey,
    ShareTenantKeyRequest,
    Tenant,
)
from protocol.vault.epochs import TenantKeys, decode_tenant_keys, encode_tenant_keys
from protocol.vault.keys import parse_paper_key, render_paper_key
from protocol.vault.share import open_share, seal_share, share_bytes


@click.group(epilog="Example: stead tenant key export acme --paper")
def command() -> None:
    """The recovery keys of a tenant: who holds the newest can read every backup."""


command.add_command(tenant_key_rotate.rotate)
command.add_command(tenant_key_rotate.send)


@command.command(epilog="Example: stead tenant key ls acme")
@click.argument("tenant")
@output_option
@click.pass_obj
def ls(app: App, tenant: str, output: str) -> None:
    """List the recovery keys that a tenant has had, newest first.

    The newest is in force. MACHINES counts those that make restore points under a key.
    """
    connection = app.connection
    found = tenant_named(connection, tenant)
    name = TenantId(found.tenant_id)
    keys = all_keys(connection, name) if connection.keyring.has(name) else None
    here = set() if keys is None else {key.secret.recovery_public for key in keys.keys}
    counts = (
        Counter() if keys is None else _machines_by_key(keys, active_machines(connection, found))
    )
    emit(
        [
            key_row(key, here=key.recovery_key in here, machines=counts[bytes(key.recovery_key)])
            for key in listed_keys(connection, name)
        ],
        output,
        columns=("number", "key", "since", "made_by", "key_here", "machines"),
    )


@command.command(epilog="Example: stead tenant key export acme --paper")
@click.argument("tenant")
@click.option("--paper", is_flag=True, help="12 groups of 5 characters, to be written down.")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="Write the key file there (mode 0600)."
)
@click.pass_obj
def export(app: App, tenant: str, paper: bool, target: Path | None) -> None:
    """Print a tenant's recovery key, or copy it into a file.

    The file holds all the keys that the tenant has had; paper holds the newest, and the
    vault holds the others for whoever has that.
    """
    found = tenant_named(app.connection, tenant)
    held = present_keys(app.connection, found)
    on_paper = render_paper_key(held.newest)
    if paper and target is None:
        click.echo(on_paper)
        return
    data = f"{on_paper}\n".encode() if paper else encode_tenant_keys(held)
    if target is not None:
        _write_new(target, data)
        note(f"The recovery key of {found.name} is in {target}. Keep it safe and secret.")
        return
    if sys.stdout.isatty():
        raise InvalidError("a key file is not for a terminal: add --paper, or --to FILE")
    sys.stdout.buffer.write(data)


@command.command("import", epilog="Example: stead tenant key import acme acme.key")
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
    _take(app.connection, found, read_key(file.read(64 * 1024)))


@command.command(epilog="Example: stead tenant key share acme --with eve")
@click.argument("tenant")
@click.option("--with", "operator", required=True, metavar="OPERATOR", help="Who gets it.")
@click.pass_obj
def share(app: App, tenant: str, operator: str) -> None:
    """Hand a tenant's recovery keys to another operator, through the controller.

    They are sealed to the key in that operator's certificate, which the installation's
    root signed, so the controller can neither read nor replace them. The operator takes
    them with `stead tenant key receive`. From then on that person can read every backup
    of the tenant, for ever: a rotation keeps only what is backed up later from them.
    """
    connection = app.connection
    found = tenant_named(connection, tenant)
    name = TenantId(found.tenant_id)
    keys = present_keys(connection, found)
    certificate = recipient_of(connection, operator, name)
    sealed = seal_share(keys, certificate, tenant=name, name=operator)
    signature = connection.sign(share_bytes(sealed, name, operator))
    connection.tenants.ShareTenantKey(
        ShareTenantKeyRequest(
            share=SharedKey(
                tenant_id=name,
                operator=operator,
                sealed=sealed,
                certificate=connection.certificate.public_bytes(Encoding.DER),
                signature=signature,
            )
        )
    )
    note(f"Left for {operator}, who takes it with: stead tenant key receive {found.name}")


@command.command(epilog="Example: stead tenant key receive acme")
@click.argument("tenant")
@click.pass_obj
def receive(app: App, tenant: str) -> None:
    """Take the recovery keys that another operator has shared with you."""
    connection = app.connection
    found = tenant_named(connection, tenant)
    name = TenantId(found.tenant_id)
    left = connection.tenants.ListSharedKeys(ListSharedKeysRequest(tenant_id=name)).shares
    if not left:
        raise NotFoundError(
            f"nobody has left a key of {found.name} for {connection.operator.name}; an operator "
            f"who has it can: stead tenant key share {found.name} --with "
            f"{connection.operator.name}"
        )
    sender, who = sender_of(connection, left[0].certificate, name)
    keys = open_share(
        left[0].sealed,
        left[0].signature,
        sender,
        connection.key,
        tenant=name,
        name=connection.operator.name,
    )
    note(f"From {who.name}:")
    _take(connection, found, keys)


def read_key(data: bytes) -> TenantKeys:
    """Recovery keys from a key file or from what was written on paper; INVALID otherwise."""
    try:
        return decode_tenant_keys(data)
    except InvalidError:
        if not data.isascii():
            raise
        return TenantKeys((parse_paper_key(data.decode()),))


def _take(connection: Connection, tenant: Tenant, given: TenantKeys) -> None:
    """Add keys to this profile."""
    name = TenantId(tenant.tenant_id)
    held = connection.keyring.load(name) if connection.keyring.has(name) else None
    keys = merged(tenant, listed_keys(connection, name), held, given)
    if held is not None and keys == held:
        note(f"The recovery key of {tenant.name} is here already.")
        return
    saved = connection.keyring.replace(name, keys)
    note(f"The recovery key of {tenant.name} is in {saved}.")
    if keys.newest.secret.recovery_public != tenant.recovery_key:
        note(
            "It is not the key in force: it opens restore points of before. Have the newest one "
            "shared with you, too."
        )


def _machines_by_key(keys: TenantKeys, machines: Sequence[Machine]) -> Counter[bytes]:
    return Counter(
        key.secret.recovery_public
        for machine in machines
        for key in keys.keys
        if is_proved(key, machine)
    )


def _write_new(target: Path, data: bytes) -> None:
    try:
        write_durably(target, data)
    except FileExistsError:
        raise SteadError(f"{target} is there already", code=Code.ALREADY_EXISTS) from None
    except OSError as error:
        raise InvalidError(f"{target} cannot be written: {error.strerror}") from error
