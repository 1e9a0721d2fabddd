"""`stead operator`: people who may give orders, made by the root alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import rich_click as click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.authority.certificates import OPERATOR_LIFETIME, certify_operator
from controller.authority.durable import make_directory, write_durably
from controller.authority.keys import new_key, new_serial
from controller.cli.app import App
from controller.cli.commands.operator_key import key as key_command
from controller.cli.commands.operator_key import root_option
from controller.cli.commands.operator_request import accept, certify, request
from controller.cli.operator.choice import tenant_names
from controller.cli.operator.making import (
    identity_for,
    issuer_of,
    operator_row,
    refuse_taken,
    root_of,
)
from controller.cli.operator.passphrase import Whose, kept_as
from controller.cli.operator.renewal import renew
from controller.cli.operator.revoking import (
    keep_list,
    newest_list,
    next_list,
    read_of,
    refuse_last,
    revoked_operator,
)
from controller.cli.options.usual import Moment, yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, emit_one, note, output_option
from controller.config import OperatorHome, OperatorSettings, render_settings
from protocol.errors import Code, NotFoundError, SteadError
from protocol.identity import OperatorIdentity, Role, identity_of
from protocol.ids import TenantId, check_name
from protocol.revocation import Revocations, RevokedOperator, plan_revocation
from protocol.tls import chain_pem
from protocol.v1.operator_pb2 import (
    AddOperatorRequest,
    ListOperatorsRequest,
    ListTenantsRequest,
    RevokeOperatorRequest,
)

LISTED = ("name", "revoked_at", "key")

lifetime_option = click.option(
    "--days",
    type=click.IntRange(1, OPERATOR_LIFETIME.days),
    default=OPERATOR_LIFETIME.days,
    show_default=True,
    help="How long the certificate is good for.",
)


@click.group(epilog="Example: stead operator ls")
def command() -> None:
    """People who may give orders."""


for added in (key_command, request, certify, accept):
    command.add_command(added)


@command.command(epilog="Example: stead operator add eve --role helpdesk --tenant acme")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([r.value for r in Role]),
    required=True,
    help="What they may do; see docs/guide/operating.md.",
)
@click.option(
    "--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated. Default: all."
)
@root_option
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    help="Where to write the profile. Default: ./stead-NAME.",
)
@lifetime_option
@click.option(
    "--with-keys", is_flag=True, help="Hand over the tenants' recovery keys that are here, too."
)
@click.option(
    "--passphrase",
    "protected",
    is_flag=True,
    help="Ask for a passphrase that protects the operator's key; tell it by another way.",
)
@output_option
@click.pass_obj
def add(
    app: App,
    name: str,
    role: str,
    tenants: tuple[str, ...],
    root: Path | None,
    target: Path | None,
    days: int,
    with_keys: bool,
    protected: bool,
    output: str,
) -> None:
    """Make an operator, signed by the root's key, and a profile to hand over."""
    check_name(name, what="operator's name")
    connection = app.connection
    refuse_taken(connection, name)
    issuer = issuer_of(app, root)
    identity = identity_for(connection, name, role, tenants)
    key = new_key()
    leaf = certify_operator(
        issuer,
        key.public_key(),
        identity,
        serial=new_serial(),
        now=clock.now(),
        lifetime=timedelta(days=days),
    )
    folder = target if target is not None else Path(f"stead-{name}")
    profile = OperatorHome(folder / "operator")
    _refuse_existing(profile)
    kept = kept_as(Whose.OPERATOR, protected=protected)(key)
    write_profile(profile, chain_pem([leaf]), kept, issuer.certificate, app.address_now)
    asked = AddOperatorRequest(certificate=leaf.public_bytes(Encoding.DER))
    recorded = connection.operators.AddOperator(asked).operator
    copied = _copy_keys(app, profile, sorted(identity.tenants or ())) if with_keys else 0
    row = operator_row(recorded, tenant_names(connection))
    emit_one({**row, "profile": str(folder), "keys": copied}, output)
    note(
        f"Hand {folder} to {name} by a way that nobody else reads, then delete it here: it holds "
        f"{name}'s key.\nThey use it with: stead --home {folder} machine ls"
    )


@command.command(epilog="Example: stead operator ls")
@output_option
@click.pass_obj
def ls(app: App, output: str) -> None:
    """List operators."""
    found = app.connection.operators.ListOperators(ListOperatorsRequest()).operators
    names = tenant_names(app.connection)
    emit(
        [operator_row(operator, names) for operator in found],
        output,
        columns=("name", "role", "state", "tenants", "ends_at", "revoked_at"),
    )


@command.command("renew", epilog="Example: stead operator renew --root /media/safe/root")
@click.argument("name", default="")
@root_option
@lifetime_option
@output_option
@click.pass_obj
def renew_(app: App, name: str, root: Path | None, days: int, output: str) -> None:
    """Make this profile's certificate anew, with the root's key; also an ended one.

    No controller is asked. NAME says whose the profile ought to be.
    """
    app.operator.load_settings()
    renewed = renew(
        app.operator, root_of(app, root), name, now=clock.now(), lifetime=timedelta(days=days)
    )
    identity = identity_of(renewed)
    assert isinstance(identity, OperatorIdentity)
    emit_one(
        {
            "name": identity.name,
            "role": identity.role.value,
            "tenants": ["all"] if identity.tenants is None else sorted(identity.tenants),
            "ends_at": renewed.not_valid_after_utc,
            "profile": str(app.operator.path),
        },
        output,
    )


@command.command(epilog="Example: stead operator revoke eve --root /media/safe/root")
@click.argument("name")
@root_option
@click.option(
    "--since",
    type=Moment(),
    default="now",
    help="Backup sets and standing orders that a machine took in from this time on end as "
    "well: for a key that was stolen then. Default: now.",
)
@click.option(
    "--controller-only",
    is_flag=True,
    help="Tell no machine, for want of the root's key: a hostile controller can go on.",
)
@click.option(
    "--by-name", is_flag=True, help="Also a name that the controller does not list, for it may lie."
)
@click.option("--dry-run", is_flag=True, help="Show the list that would be signed; sign nothing.")
@yes_option
@output_option
@click.pass_obj
def revoke(
    app: App,
    name: str,
    root: Path | None,
    since: datetime,
    controller_only: bool,
    by_name: bool,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """End an operator's access at once, running calls included. The name stays taken.

    Signs the list of revoked operators with the root's key; machines obey nobody in it.
    """
    connection = app.connection
    found = list(connection.operators.ListOperators(ListOperatorsRequest()).operators)
    gone = next((operator for operator in found if operator.name == name), None)
    if gone is None and (controller_only or not by_name):
        raise NotFoundError(
            f"there is no operator {name!r}; `stead operator ls` lists them, and --by-name revokes "
            "whom the controller does not list"
        )
    refuse_last(found, name)
    data, asked = b"", RevokeOperatorRequest(name=name)
    if not controller_only:
        now, home = clock.now(), root_of(app, root)
        issuer = issuer_of(app, root)
        entry = RevokedOperator(check_name(name), b"", since)
        if gone is not None:
            entry = revoked_operator(gone, since, connection.root)
        if not entry.key_hash:
            note(f"{name} is revoked by name alone: the controller shows no certificate of theirs")
        listed, data = next_list(
            newest_list(connection),
            home,
            issuer,
            lambda present: plan_revocation(present, entry, now=now),
        )
        if dry_run:
            emit(_entries(listed), output, columns=LISTED)
            return
    elif dry_run:
        note(f"{name} would be revoked at the controller alone.")
        return
    ask(f"Revoke {name} for good?", yes=yes, first="look with --dry-run")
    if data:
        # Before anybody is asked: a controller that refuses it cannot keep it from orders.
        keep_list(home, connection.home.revocations, data)
        asked.revocations = data
    connection.operators.RevokeOperator(asked)
    if data:
        note(f"{name} is revoked; version {listed.version} of the list goes to the machines.")
        return
    note(f"{name} is revoked at the controller; no machine is told.")


@command.command(epilog="Example: stead operator revocations")
@output_option
@click.pass_obj
def revocations(app: App, output: str) -> None:
    """Show the list of revoked operators that machines are told, the newest that is known."""
    listed = read_of(newest_list(app.connection), app.connection.root)
    emit(_entries(listed), output, columns=LISTED)
    if listed.version:
        note(f"version {listed.version}, signed {listed.issued_at:%Y-%m-%d %H:%M}Z")
    else:
        note("the root has signed no list yet")


def _entries(listed: Revocations) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "revoked_at": one.revoked_at,
            "key": one.key_hash.hex(),
            "version": listed.version,
            "issued_at": listed.issued_at,
        }
        for one in listed.operators
    ]


def write_profile(
    profile: OperatorHome, certificate: bytes, key: bytes, root: x509.Certificate, address: str
) -> None:
    """Write a whole profile, for its owner's eyes only."""
    for folder in (profile.path, profile.tenants):
        make_directory(folder)
    write_durably(profile.key, key)
    write_durably(profile.certificate, certificate)
    write_durably(profile.root, chain_pem([root]))
    settings = OperatorSettings(address=address)
    write_durably(profile.settings, render_settings(settings).encode())


def _refuse_existing(profile: OperatorHome) -> None:
    if profile.path.exists():
        raise SteadError(
            f"{profile.path} is there already; name another directory with --to",
            code=Code.ALREADY_EXISTS,
        )


def _copy_keys(app: App, profile: OperatorHome, scope: list[TenantId]) -> int:
    from controller.cli.operator.keyring import Keyring

    own, theirs = app.connection.keyring, Keyring(profile.tenants)
    listed = app.connection.tenants.ListTenants(ListTenantsRequest()).tenants
    wanted = scope or [TenantId(tenant.tenant_id) for tenant in listed]
    held = [tenant for tenant in wanted if own.has(tenant)]
    for tenant in held:
        theirs.save(tenant, own.load(tenant))
    return len(held)
