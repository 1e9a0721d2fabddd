"""`stead audit`: read the log, and prove that nobody changed it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import rich_click as click

from controller.audit.chain import Broken, Entry, Head, Verified, verify
from controller.audit.log import INSTALLATION
from controller.cli.app import App
from controller.cli.choice import tenant_named
from controller.cli.connection import Connection
from controller.cli.emit import emit, note, output_option
from controller.cli.exits import DONE, FAILED
from controller.cli.heads import SeenHeads, parse_head
from controller.db.micros import from_micros
from protocol.errors import InvalidError
from protocol.v1.operator_pb2 import AuditEntry, ListAuditRequest, ListTenantsRequest

PAGE = 1000
INSTALLATION_NAME = "installation"


@click.group(epilog="Example: stead audit verify")
def command() -> None:
    """Read and verify the audit log."""


@command.command(epilog="Example: stead audit ls --tenant acme --limit 20")
@click.option(
    "--tenant",
    metavar="NAME",
    default=INSTALLATION_NAME,
    show_default=True,
    help="A tenant's log, or the installation's own.",
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest.")
@output_option
@click.pass_obj
def ls(app: App, tenant: str, limit: int, output: str) -> None:
    """Show the newest entries of a log, oldest first."""
    connection = app.connection
    log, _ = _log_named(connection, tenant)
    head = connection.audit.ListAudit(ListAuditRequest(tenant_id=log, limit=1)).head_sequence
    rows = [
        {
            "sequence": entry.seq,
            "at": entry.at,
            "actor": entry.actor,
            "event": entry.event,
            "body": entry.body,
            "hash": entry.hash,
        }
        for entry in _entries(connection, log, after=max(0, head - limit))
    ]
    emit(rows, output, columns=("sequence", "at", "actor", "event", "body"), empty="no entries")


@command.command("verify", epilog="Example: stead audit verify --tenant acme --head 41:9f86d0…")
@click.option("--tenant", metavar="NAME", default="", help="Only this log; or `installation`.")
@click.option(
    "--head",
    metavar="SEQ:HASH",
    default="",
    help="A head noted earlier: the log must go through it. Needs --tenant.",
)
@output_option
@click.pass_obj
def verify_(app: App, tenant: str, head: str, output: str) -> int:
    """Recompute the chain of every log that you may see.

    The heads that were seen are kept in your profile, and every later log must go through
    them: so one that was cut or rewritten since is found out as well. Note the heads
    somewhere else, too, and --head holds a log against them.
    """
    connection = app.connection
    if head and not tenant:
        raise InvalidError("--head belongs to one log: name it with --tenant")
    logs = [_log_named(connection, tenant)] if tenant else _all_logs(connection)
    seen = SeenHeads(app.operator.path / "audit")
    rows = [_verified(connection, seen, log, name, parse_head(head)) for log, name in logs]
    if not tenant:
        rows += [_gone(log) for log in sorted(seen.logs() - {log for log, _ in logs})]
    emit(rows, output, columns=("log", "state", "entries", "head", "reason"))
    return DONE if all(row["state"] == "ok" for row in rows) else FAILED


def entry_of(entry: AuditEntry, tenant: str) -> Entry:
    """An entry as the chain takes it; `tenant` is whose log was asked for."""
    return Entry(
        tenant_id=tenant,
        seq=entry.sequence,
        at=from_micros(entry.at_us),
        actor=entry.actor,
        event=entry.event,
        body=entry.body,
        previous=entry.previous,
        hash=entry.hash,
    )


def _verified(
    connection: Connection, seen: SeenHeads, log: str, name: str, given: Head | None
) -> dict[str, Any]:
    count = 0
    before = seen.load(log)

    def counted() -> Iterator[Entry]:
        nonlocal count
        for entry in _entries(connection, log, after=0):
            count += 1
            yield entry

    result = verify(counted(), log, expected=before)
    if isinstance(result, Verified) and given is not None:
        result = verify(_entries(connection, log, after=0), log, expected=given)
    if isinstance(result, Verified):
        seen.save(log, result.head)
    if isinstance(result, Broken):
        row = {"state": "damaged", "head": "", "reason": f"entry {result.seq}: {result.reason}"}
    else:
        at = f"{result.head.seq}:{result.head.hash.hex()}"
        row = {"state": "ok", "head": at, "reason": ""}
    return {"log": name, "entries": count, **row}


def _gone(log: str) -> dict[str, Any]:
    reason = "it was verified before, and the controller no longer lists it"
    name = log or INSTALLATION_NAME
    return {"log": name, "entries": 0, "state": "damaged", "head": "", "reason": reason}


def _entries(connection: Connection, log: str, *, after: int) -> Iterator[Entry]:
    while True:
        request = ListAuditRequest(tenant_id=log, after=after, limit=PAGE)
        page = connection.audit.ListAudit(request).entries
        for entry in page:
            yield entry_of(entry, log)
        if not page or page[-1].sequence <= after:
            return
        after = page[-1].sequence


def _log_named(connection: Connection, name: str) -> tuple[str, str]:
    if name == INSTALLATION_NAME:
        return INSTALLATION, INSTALLATION_NAME
    tenant = tenant_named(connection, name)
    return tenant.tenant_id, tenant.name


def _all_logs(connection: Connection) -> Sequence[tuple[str, str]]:
    tenants = connection.tenants.ListTenants(ListTenantsRequest()).tenants
    logs = [(tenant.tenant_id, tenant.name) for tenant in tenants]
    if connection.operator.tenants is None:
        return [(INSTALLATION, INSTALLATION_NAME), *logs]
    note("the installation's own log is for operators of all tenants, and was left out")
    return logs
