"""`stead tenant key rotate` and `send`: a new recovery key, and machines that take it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import active_machines, machines_meant, tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.operator.ruling import newest_policy, say_approval
from controller.cli.operator.tenant_keys import is_proved, key_of_machine, present_keys, unproved
from controller.cli.options.spans import Span
from controller.cli.options.terms import Terms
from controller.cli.options.usual import yes_option
from controller.cli.orders.following import follow
from controller.cli.orders.ordering import submit_all
from controller.cli.orders.outcomes import exit_code, say_failures
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.exits import DONE, IN_PART
from protocol.action import Action, ChangeVaultSecret
from protocol.errors import DeniedError
from protocol.identity import Role
from protocol.ids import MachineId, TenantId
from protocol.sealing import seal_secret
from protocol.v1.operator_pb2 import Machine, RotateTenantKeyRequest
from protocol.vault.epochs import TenantKeys, link

MACHINES_AT_ONCE = 500
"""Secrets in one order, so that a machine does not read those of ten thousand others."""

deliver_by_option = click.option(
    "--deliver-by",
    type=Span(),
    default="30d",
    show_default=True,
    help="Machines that are not heard until then go on with the key before.",
)
wait_option = click.option("--wait/--no-wait", default=True, help="Wait for the machines.")
reason_option = click.option("--reason", default="", help="Why; kept in the audit log.")
_MACHINE_COLUMNS = ("machine", "linked", "key_now")


@click.command(epilog="Example: stead tenant key rotate acme --reason 'eve has left'")
@click.argument("tenant")
@deliver_by_option
@wait_option
@reason_option
@yes_option
@click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing.")
@output_option
@click.pass_obj
def rotate(
    app: App,
    tenant: str,
    deliver_by: timedelta,
    wait: bool,
    reason: str,
    yes: bool,
    dry_run: bool,
    output: str,
) -> int:
    """Give a tenant a new recovery key and tell its machines.

    Backups are made under the new key from then on, and are sent whole once: nothing is
    shared with what was made under the key before. Restore points of before stay readable
    with the keys of before, which the new one leads to. Tokens of the tenant become
    worthless. Revoke machines that are not to be trusted first: every active one gets
    the new secret.
    """
    connection = app.connection
    found = tenant_named(connection, tenant)
    name = TenantId(found.tenant_id)
    if connection.operator.role is not Role.ADMIN:
        raise DeniedError(f"{connection.operator.name} is no admin and may not rotate keys")
    held = connection.keyring.load(name)
    was_cut_off = connection.keyring.is_prepared(name, found.recovery_key)
    if not was_cut_off:
        held = present_keys(connection, found)
    machines = active_machines(connection, found)
    question = (
        f"give {found.name} a new recovery key, make its tokens worthless, and send the new "
        f"secret to {_count(machines)}"
    )
    ruled = newest_policy(connection, name)
    say_approval(ruled, ChangeVaultSecret({}), min(len(machines), MACHINES_AT_ONCE), connection)
    if dry_run:
        note(f"would {question}")
        emit([_machine_row(held, m) for m in machines], output, columns=_MACHINE_COLUMNS)
        return DONE
    ask(f"{question}?", yes=yes)
    key = connection.keyring.prepare(name)
    answer = connection.tenants.RotateTenantKey(
        RotateTenantKeyRequest(
            tenant_id=name,
            present_key=held.newest.secret.recovery_public,
            recovery_key=key.secret.recovery_public,
            link=link(key, held.newest),
        )
    )
    keys = connection.keyring.adopt(name)
    note(
        f"Recovery key {answer.key.number} of {found.name} is in force. Keep a copy in a safe "
        f"place now: stead tenant key export {found.name} --paper"
    )
    if answer.revoked_tokens:
        note(f"{answer.revoked_tokens} of its tokens are worthless now; make new ones.")
    return _send(connection, keys, machines, _terms(deliver_by, wait, reason), output)


@click.command(epilog="Example: stead tenant key send acme --machine web-01")
@click.argument("tenant")
@click.option("--machine", "selector", default="all", help="Only these; a selector.")
@deliver_by_option
@wait_option
@reason_option
@output_option
@click.pass_obj
def send(
    app: App,
    tenant: str,
    selector: str,
    deliver_by: timedelta,
    wait: bool,
    reason: str,
    output: str,
) -> int:
    """Send the secret of the key in force to machines that work under an older one."""
    connection = app.connection
    found = tenant_named(connection, tenant)
    keys = present_keys(connection, found)
    machines = machines_meant(connection, selector, found.name)
    behind = [m for m in machines if not is_proved(keys.newest, m)]
    if not behind:
        note("All of them work under the key in force.")
        return DONE
    return _send(connection, keys, behind, _terms(deliver_by, wait, reason), output)


def _send(
    connection: Connection,
    keys: TenantKeys,
    machines: Sequence[Machine],
    terms: Terms,
    output: str,
) -> int:
    """Order machines to take the newest secret; says which cannot be told."""
    able = [m for m in machines if key_of_machine(keys, m) is not None]
    for machine in machines:
        if not machine.sealing_key:
            note(
                f"{machine.name} never held a link, so nothing can be sealed to it; send it the "
                "secret later with `stead tenant key send`"
            )
        elif machine not in able:
            note(str(unproved(machine)))
    parts: list[tuple[Sequence[Machine], Action]] = []
    for start in range(0, len(able), MACHINES_AT_ONCE):
        some = able[start : start + MACHINES_AT_ONCE]
        action = ChangeVaultSecret({m.machine_id: _sealed(keys, m) for m in some})
        parts.append((some, action))
    jobs = submit_all(connection, parts, terms, output=output, repeatable=True)
    if not terms.wait:
        rows = [{"job": job.job_id, "machines": len(job.tasks)} for job in jobs]
        emit(rows, output, columns=("job", "machines"), empty="no machine is to be told")
        return DONE
    ended = [follow(connection, job, live=False) for job in jobs]
    for job in ended:
        say_failures(job)
    rows = [{"machine": t.machine_name, "state": t.state} for job in ended for t in job.tasks]
    emit(rows, output, columns=("machine", "state"), empty="no machine is to be told")
    codes = {exit_code(job) for job in ended} | ({IN_PART} if len(able) < len(machines) else set())
    return codes.pop() if len(codes) == 1 else IN_PART if codes else DONE


def _sealed(keys: TenantKeys, machine: Machine) -> bytes:
    return seal_secret(
        keys.newest.secret,
        machine.sealing_key,
        tenant=TenantId(machine.tenant_id),
        machine=MachineId(machine.machine_id),
    )


def _machine_row(keys: TenantKeys, machine: Machine) -> dict[str, Any]:
    key = key_of_machine(keys, machine)
    return {
        "machine": machine.name,
        "linked": machine.linked,
        "key_now": None if key is None else len(keys.keys) - keys.keys.index(key),
    }


def _count(machines: Sequence[Machine]) -> str:
    return "1 machine" if len(machines) == 1 else f"{len(machines)} machines"


def _terms(deliver_by: timedelta, wait: bool, reason: str) -> Terms:
    return Terms(
        wait=wait,
        deliver_by=deliver_by,
        timeout=timedelta(minutes=5),
        reason=reason,
        yes=True,
        dry_run=False,
        tenant="",
    )
