"""`stead operator`: people who may give orders, made by the root alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.authority.certificates import certify_operator
from controller.authority.durable import make_directory, write_durably
from controller.authority.keys import new_key, new_serial
from controller.cli.app import App
from controller.cli.choice import tenant_named
from controller.cli.emit import emit, emit_one, from_wire_ms, note, output_option
from controller.cli.options import yes_option
from controller.cli.renewal import load_root, renew
from controller.config import OperatorHome, OperatorSettings, RootHome, render_settings
from protocol.errors import Code, NotFoundError, SteadError
from protocol.identity import OperatorIdentity, Role, identity_of
from protocol.ids import TenantId, check_name
from protocol.tls import chain_pem, private_pem
from protocol.v1.operator_pb2 import (
    AddOperatorRequest,
    ListOperatorsRequest,
    ListTenantsRequest,
    Operator,
    RevokeOperatorRequest,
)

root_option = click.option(
    "--root",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the root key, where it was moved. Default: `root` in the home directory.",
)


@click.group(epilog="Example: stead operator ls")
def command() -> None:
    """People who may give orders."""


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
@click.option(
    "--with-keys", is_flag=True, help="Hand over the tenants' recovery keys that are here, too."
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
    with_keys: bool,
    output: str,
) -> None:
    """Make an operator, signed by the root's key, and a profile to hand over."""
    check_name(name, what="operator's name")
    connection = app.connection
    known = connection.operators.ListOperators(ListOperatorsRequest()).operators
    if any(operator.name == name for operator in known):
        raise SteadError(
            f"there is an operator {name} already; see `stead operator ls`",
            code=Code.ALREADY_EXISTS,
        )
    issuer = load_root(_root(app, root), clock.now())
    if issuer.certificate != connection.root:
        raise SteadError(
            "the root key here belongs to another installation than this profile",
            code=Code.WRONG_PIN,
        )
    scope = [TenantId(tenant_named(connection, t).tenant_id) for t in tenants]
    identity = OperatorIdentity(name, Role(role), frozenset(scope) if scope else None)
    key = new_key()
    leaf = certify_operator(
        issuer, key.public_key(), identity, serial=new_serial(), now=clock.now()
    )
    folder = target if target is not None else Path(f"stead-{name}")
    profile = OperatorHome(folder / "operator")
    _refuse_existing(profile)
    write_profile(profile, chain_pem([leaf]), private_pem(key), issuer.certificate, app.address_now)
    request = AddOperatorRequest(certificate=leaf.public_bytes(Encoding.DER))
    recorded = connection.operators.AddOperator(request).operator
    copied = _copy_keys(app, profile, scope) if with_keys else 0
    emit_one({**_row(recorded, _names(app)), "profile": str(folder), "keys": copied}, output)
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
    names = _names(app)
    emit(
        [_row(operator, names) for operator in found],
        output,
        columns=("name", "role", "state", "tenants", "ends_at", "revoked_at"),
    )


@command.command("renew", epilog="Example: stead operator renew --root /media/safe/root")
@click.argument("name", default="")
@root_option
@output_option
@click.pass_obj
def renew_(app: App, name: str, root: Path | None, output: str) -> None:
    """Make this profile's certificate anew for a year, with the root's key; also an ended one.

    No controller is asked. NAME says whose the profile ought to be.
    """
    app.operator.load_settings()
    renewed = renew(app.operator, _root(app, root), name, now=clock.now())
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


@command.command(epilog="Example: stead operator revoke eve")
@click.argument("name")
@yes_option
@click.pass_obj
def revoke(app: App, name: str, yes: bool) -> None:
    """End an operator's access at once, running calls included. The name stays taken."""
    found = app.connection.operators.ListOperators(ListOperatorsRequest()).operators
    if not any(operator.name == name for operator in found):
        raise NotFoundError(f"there is no operator {name!r}; `stead operator ls` lists them")
    if not yes:
        click.confirm(f"Revoke {name} for good?", abort=True, err=True)
    app.connection.operators.RevokeOperator(RevokeOperatorRequest(name=name))
    note(f"{name} is revoked.")


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


def _root(app: App, named: Path | None) -> RootHome:
    return app.root if named is None else RootHome(named)


def _refuse_existing(profile: OperatorHome) -> None:
    if profile.path.exists():
        raise SteadError(
            f"{profile.path} is there already; name another directory with --to",
            code=Code.ALREADY_EXISTS,
        )


def _copy_keys(app: App, profile: OperatorHome, scope: list[TenantId]) -> int:
    from controller.cli.keyring import Keyring

    own, theirs = app.connection.keyring, Keyring(profile.tenants)
    listed = app.connection.tenants.ListTenants(ListTenantsRequest()).tenants
    wanted = scope or [TenantId(tenant.tenant_id) for tenant in listed]
    held = [tenant for tenant in wanted if own.has(tenant)]
    for tenant in held:
        theirs.save(tenant, own.load(tenant))
    return len(held)


def _names(app: App) -> dict[str, str]:
    listed = app.connection.tenants.ListTenants(ListTenantsRequest()).tenants
    return {tenant.tenant_id: tenant.name for tenant in listed}


def _row(operator: Operator, names: dict[str, str]) -> dict[str, Any]:
    revoked = from_wire_ms(operator.revoked_at_ms)
    return {
        "name": operator.name,
        "role": operator.role,
        "state": "active" if revoked is None else "revoked",
        "tenants": [names.get(t, t) for t in operator.tenant_ids] or ["all"],
        "ends_at": from_wire_ms(operator.not_after_ms),
        "revoked_at": revoked,
    }
