"""`stead policy`: who may order what in a tenant, as the root ruled it."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from controller import clock
from controller.authority.durable import make_directory, replace_durably
from controller.cli.app import App
from controller.cli.commands.operator_key import root_option
from controller.cli.operator.choice import tenant_named
from controller.cli.operator.making import issuer_of, root_of
from controller.cli.operator.ruling import keep_policy, newest_policy
from controller.cli.options.usual import yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, from_wire_ms, note, output_option
from controller.cli.policy_file import difference, parse_policy, policy_of, render_rule, rule_rows
from controller.config import RootHome
from protocol.ids import TenantId
from protocol.policy import no_policy, sign_policy
from protocol.policy_codec import encode_policy, encode_signed_policy, read_policy
from protocol.v1.policy_pb2 import ApplyPolicyRequest, ListPoliciesRequest

COLUMNS = ("subject", "forbid", "roles", "second_above", "longest_days")


@click.group(epilog="Example: stead policy show acme")
def command() -> None:
    """Who may order what in a tenant, and when it takes two operators."""


@command.command(epilog="Example: stead policy apply acme.toml --root /media/safe/root")
@click.argument("file", type=click.File("rb"))
@root_option
@click.option("--dry-run", is_flag=True, help="Show what would change; sign nothing.")
@yes_option
@output_option
@click.pass_obj
def apply(
    app: App, file: click.File, root: Path | None, output: str, *, dry_run: bool, yes: bool
) -> None:
    """Sign the policy in FILE with the root's key, and have machines judge by it.

    FILE is TOML and stands for all before it: what it does not mention is as built in. An
    order above the limit then takes `stead job approve` by another operator.
    """
    connection = app.connection
    text = parse_policy(file.read())  # type: ignore[attr-defined]
    tenant = tenant_named(connection, text.tenant)
    tenant_id = TenantId(tenant.tenant_id)
    home = root_of(app, root)
    present = newest_policy(connection, tenant_id).policy
    signed_here = _signed_here(home, tenant_id)
    if signed_here:
        # A version is never given twice by one root.
        last = read_policy(signed_here, connection.root, tenant=tenant_id)
        present = max(present, last, key=lambda one: one.version)
    following = policy_of(text, tenant_id, present.version + 1, clock.now())
    changes = difference(present, following)
    if dry_run:
        emit(changes, output, columns=("subject", "before", "after"), empty="nothing changes")
        return
    if not changes and present.version:
        note(f"version {present.version} says just that; nothing was signed")
        return
    issuer = issuer_of(app, root)
    ask(
        # By its id too: which tenant has a name is the controller's word.
        f"Sign version {following.version} for {tenant.name} ({tenant_id})?",
        yes=yes,
        first="look with --dry-run",
        shown=(f"{one['subject']}: {one['before']} → {one['after']}" for one in changes),
    )
    data = encode_signed_policy(sign_policy(encode_policy(following), issuer.key))
    # Before anybody is asked: a controller that refuses it cannot keep it from orders.
    make_directory(home.policies)
    replace_durably(home.policies / tenant_id, data)
    keep_policy(connection, tenant_id, data)
    connection.policies.ApplyPolicy(ApplyPolicyRequest(tenant_id=tenant_id, policy=data))
    note(f"version {following.version} is in force for {tenant.name} and goes to its machines")
    emit(rule_rows(following), output, columns=COLUMNS, empty="everything is as built in")


@command.command(epilog="Example: stead policy show acme")
@click.argument("tenant", default="")
@output_option
@click.pass_obj
def show(app: App, tenant: str, output: str) -> None:
    """Show a tenant's policy, the newest that is known."""
    connection = app.connection
    found = tenant_named(connection, tenant)
    policy = newest_policy(connection, TenantId(found.tenant_id)).policy
    emit(rule_rows(policy), output, columns=COLUMNS, empty="everything is as built in")
    if policy.version:
        note(f"version {policy.version}, signed {policy.issued_at:%Y-%m-%d %H:%M}Z")
    else:
        note("the root has signed no policy for this tenant: what is built in holds")


@command.command(epilog="Example: stead policy history acme")
@click.argument("tenant", default="")
@output_option
@click.pass_obj
def history(app: App, tenant: str, output: str) -> None:
    """Show what each version of a tenant's policy changed, newest first."""
    connection = app.connection
    found = tenant_named(connection, tenant)
    tenant_id = TenantId(found.tenant_id)
    listed = connection.policies.ListPolicies(ListPoliciesRequest(tenant_id=tenant_id)).policies
    before, rows = no_policy(tenant_id), []
    for one in reversed(listed):
        policy = read_policy(one.policy, connection.root, tenant=tenant_id)
        changes = difference(before, policy)
        rows.append(
            {
                "version": policy.version,
                "issued_at": policy.issued_at,
                "published_at": from_wire_ms(one.published_at_ms),
                "published_by": one.published_by,
                "changes": "; ".join(f"{c['subject']}: {c['after']}" for c in changes),
                "rules": {row["subject"]: render_rule(row) for row in rule_rows(policy)},
            }
        )
        before = policy
    emit(
        rows[::-1],
        output,
        columns=("version", "issued_at", "published_by", "changes"),
        empty="the root has signed no policy for this tenant",
    )


def _signed_here(home: RootHome, tenant: TenantId) -> bytes:
    path = home.policies / tenant
    return path.read_bytes() if os.path.lexists(path) else b""
