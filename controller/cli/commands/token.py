"""`stead token`: what lets machines in."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.operator.choice import tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.operator.tenant_keys import present_keys
from controller.cli.options.spans import Span
from controller.cli.output.emit import emit, from_wire_ms, note, output_option
from protocol.identity import pin_of
from protocol.ids import TenantId, TokenId
from protocol.token import SECRET_BYTES, Token, encode_token, hash_secret, seal_bundle
from protocol.v1.operator_pb2 import (
    CreateTokenRequest,
    ListTenantsRequest,
    ListTokensRequest,
    RevokeTokenRequest,
    Tenant,
)
from protocol.v1.operator_pb2 import Token as ListedToken
from protocol.vault.keys import encode_vault_secret


@click.group(epilog="Example: stead token new --tenant acme > token")
def command() -> None:
    """Tokens that let machines in."""


@command.command(epilog="Example: stead token new --tenant acme --uses 20 --ttl 7d --tag office")
@click.option("--tenant", metavar="NAME", default="", help="The tenant; needed with several.")
@click.option(
    "--uses",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="How many machines.",
)
@click.option(
    "--ttl",
    type=Span(),
    default="24h",
    show_default=True,
    help="How long it is good; 90 days at most.",
)
@click.option("--tag", "tags", multiple=True, help="Tag that the machines get; may be repeated.")
@click.pass_obj
def new(app: App, tenant: str, uses: int, ttl: timedelta, tags: tuple[str, ...]) -> None:
    """Make an enrollment token and print it alone: it is a secret."""
    connection = app.connection
    found = tenant_named(connection, tenant)
    line, expires = make_token(connection, found, uses=uses, ttl=ttl, tags=tags)
    click.echo(line)
    until = f" until {expires.astimezone():%Y-%m-%d %H:%M}" if expires is not None else ""
    note(
        f"Good for {uses} machine{'s' if uses > 1 else ''} of {found.name}{until}. "
        "On the machine: stead-agent enroll --token -"
    )


@command.command(epilog="Example: stead token ls --tenant acme")
@click.option("--tenant", metavar="NAME", default="", help="Only this tenant.")
@output_option
@click.pass_obj
def ls(app: App, tenant: str, output: str) -> None:
    """List tokens, newest first, never their secrets."""
    connection = app.connection
    tenants = (
        [tenant_named(connection, tenant)]
        if tenant
        else connection.tenants.ListTenants(ListTenantsRequest()).tenants
    )
    rows = [
        _row(token, each.name)
        for each in tenants
        for token in connection.tokens.ListTokens(
            ListTokensRequest(tenant_id=each.tenant_id)
        ).tokens
    ]
    emit(
        rows,
        output,
        columns=("id", "tenant", "state", "uses_left", "uses", "expires_at", "created_by"),
        empty="there is no token; `stead token new` makes one",
    )


@command.command(epilog="Example: stead token revoke tk_01jv3z9q4m8c6n2x7b5k1d0w9r")
@click.argument("token")
@click.pass_obj
def revoke(app: App, token: str) -> None:
    """Make a token worthless. TOKEN is its id, as `stead token ls` shows it."""
    app.connection.tokens.RevokeToken(RevokeTokenRequest(token_id=token))
    note(f"{token} is worthless now. Machines that used it stay enrolled.")


def make_token(
    connection: Connection, tenant: Tenant, *, uses: int, ttl: timedelta, tags: tuple[str, ...]
) -> tuple[str, datetime | None]:
    """Make a token, record it, and return its line and its end."""
    keys = present_keys(connection, tenant)
    name = TokenId(clock.new_id("tk"))
    secret, opening = os.urandom(SECRET_BYTES), os.urandom(SECRET_BYTES)
    created = connection.tokens.CreateToken(
        CreateTokenRequest(
            token_id=name,
            tenant_id=tenant.tenant_id,
            secret_hash=hash_secret(secret),
            sealed_bundle=seal_bundle(
                opening, name, TenantId(tenant.tenant_id), encode_vault_secret(keys.newest.secret)
            ),
            uses=uses,
            ttl_s=int(ttl.total_seconds()),
            tags=tags,
        )
    )
    pin = pin_of(connection.root)
    token = Token(name, secret, opening, pin, created.enrollment_address)
    return encode_token(token), from_wire_ms(created.expires_at_ms)


def _row(token: ListedToken, tenant: str) -> dict[str, Any]:
    revoked, expires = from_wire_ms(token.revoked_at_ms), from_wire_ms(token.expires_at_ms)
    return {
        "id": token.token_id,
        "tenant": tenant,
        "state": _state(token, expires),
        "uses": token.uses,
        "uses_left": token.uses_left,
        "expires_at": expires,
        "revoked_at": revoked,
        "created_by": token.created_by,
    }


def _state(token: ListedToken, expires: datetime | None) -> str:
    if token.revoked_at_ms:
        return "revoked"
    if not token.uses_left:
        return "used"
    return "expired" if expires is not None and expires <= clock.now() else "good"
