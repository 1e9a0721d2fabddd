"""`stead audit`: read the log, and prove that nobody changed it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import rich_click as click

from controller.audit.chain import Broken, Entry, Head, Verified, verify
from controller.audit.trail import Mark, Walked, walk
from controller.audit.wanted import Wanted
from controller.cli.app import App
from controller.cli.audit_reading import (
    INSTALLATION_NAME,
    all_logs,
    as_marks,
    entry_of,
    fresh_checkpoint,
    log_named,
    read_checkpoints,
    read_entries,
    request_for,
    steps_of,
)
from controller.cli.choice import machine_meant, machines_meant
from controller.cli.commands.audit_export import export, wanting
from controller.cli.connection import Connection
from controller.cli.emit import emit, note, output_option
from controller.cli.exits import DONE, FAILED, IN_PART
from controller.cli.heads import SeenHeads, parse_head
from controller.cli.ordering import order_and_follow
from controller.cli.outcomes import finish
from controller.cli.terms import acting, terms_of
from controller.cli.witnessing import Witnessed, ask_witnesses
from protocol.action import ResetWitness
from protocol.errors import InvalidError, SteadError

COLUMNS = ("log", "state", "entries", "signed", "head", "reason")


@click.group(epilog="Example: stead audit verify")
def command() -> None:
    """Read and verify the audit log."""


command.add_command(export)


@command.command(epilog="Example: stead audit ls --tenant acme --since 2d --actor ann")
@click.option(
    "--tenant",
    metavar="NAME",
    default=INSTALLATION_NAME,
    show_default=True,
    help="A tenant's log, or the installation's own.",
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest.")
@wanting
@output_option
@click.pass_obj
def ls(
    app: App,
    tenant: str,
    limit: int,
    since: datetime | None,
    until: datetime | None,
    event: str,
    actor: str,
    machine: str,
    output: str,
) -> None:
    """Show the newest entries of a log that fit, oldest first."""
    connection = app.connection
    log, _ = log_named(connection, tenant)
    by_id = machine_meant(connection, machine, "").machine_id if machine else ""
    request = request_for(log, Wanted(since, until, event, actor, by_id))
    request.limit, request.newest = limit, True
    rows = [
        {
            "sequence": entry.seq,
            "at": entry.at,
            "actor": entry.actor,
            "event": entry.event,
            "body": entry.body,
            "hash": entry.hash,
        }
        for entry in (entry_of(one, log) for one in connection.audit.ListAudit(request).entries)
    ]
    emit(rows, output, columns=("sequence", "at", "actor", "event", "body"), empty="no entries")


@command.command("verify", epilog="Example: stead audit verify --tenant acme --head 41:9f86d0…")
@click.option("--tenant", metavar="NAME", default="", help="Only this log; or `installation`.")
@click.option(
    "--head",
    metavar="SEQ:HASH",
    default="",
    help="A head noted earlier: the log must go through it. Needs --tenant or --from.",
)
@click.option(
    "--from",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="An export: checked without any controller.",
)
@output_option
@click.pass_obj
def verify_(app: App, tenant: str, head: str, file: Path | None, output: str) -> int:
    """Recompute the chain and the tree of every log that you may see.

    Each must go through every checkpoint that the controller signed. The heads that were
    seen are kept in your profile, and every later log must go through them: so one that was
    cut or rewritten since is found out as well. `stead audit witness` asks machines, too.
    """
    if file is not None:
        return _offline(app, file, head, output)
    if head and not tenant:
        raise InvalidError("--head belongs to one log: name it with --tenant")
    logs = [log_named(app.connection, tenant)] if tenant else all_logs(app.connection)
    seen = SeenHeads(app.operator.path / "audit")
    rows = [_verified(app.connection, seen, log, name, parse_head(head), ()) for log, name in logs]
    if not tenant:
        rows += [_gone(log) for log in sorted(seen.logs() - {log for log, _ in logs})]
    emit(rows, output, columns=COLUMNS)
    return DONE if all(row["state"] == "ok" for row in rows) else FAILED


@command.command(epilog="Example: stead audit witness all --tenant acme")
@click.argument("selector")
@acting
@output_option
@click.pass_obj
def witness(app: App, /, selector: str, output: str, **options: Any) -> int:
    """Ask machines which checkpoints they keep, and verify the logs against them.

    The controller carries the question and can keep answers back: a machine that says
    nothing is named, and the exit code is 3.
    """
    terms, connection = terms_of(options), app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    found = ask_witnesses(connection, machines, terms, output)
    if found is None:
        return DONE
    for line in found.alarms:
        note(f"alarm: {line}")
    for line in found.silent:
        note(f"not heard: {line}")
    if found.unproven:
        note(
            "signed by the machine's certificate alone, which the controller could have made, "
            f"since your profile has no key of the tenant: {', '.join(found.unproven)}"
        )
    rows = _held_against(app, found)
    emit(rows, output, columns=(*COLUMNS[:4], "witnesses", "reason"), empty="nothing is kept yet")
    if found.alarms or any(row["state"] != "ok" for row in rows):
        return FAILED
    return IN_PART if found.silent or not rows else DONE


@command.command(epilog="Example: stead audit reset all --tenant acme --reason 'restored'")
@click.argument("selector")
@acting
@output_option
@click.pass_obj
def reset(app: App, /, selector: str, output: str, **options: Any) -> int:
    """Have machines forget the checkpoints that they keep, with their alarms, and begin anew.

    For after the controller was restored from an older copy, once you know that it was so.
    """
    terms, connection = terms_of(options), app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    job = order_and_follow(connection, machines, ResetWitness(), terms, output=output)
    return finish(job, output)


def _held_against(app: App, found: Witnessed) -> list[dict[str, Any]]:
    """Every log that somebody keeps a checkpoint of, verified against all of these."""
    names = dict(all_logs(app.connection))
    seen = SeenHeads(app.operator.path / "audit")
    rows = []
    for log, marks in sorted(found.marks.items()):
        if log in names:
            row = _verified(app.connection, seen, log, names[log], None, marks)
            rows.append({**row, "witnesses": len(marks)})
    return rows


def _verified(
    connection: Connection,
    seen: SeenHeads,
    log: str,
    name: str,
    given: Head | None,
    marks: tuple[Mark, ...] | list[Mark],
) -> dict[str, Any]:
    count = 0
    before = seen.load(log)

    def steps() -> Iterator[Entry | Mark]:
        nonlocal count
        newest = fresh_checkpoint(connection, log)
        yield from marks
        if newest is not None:
            yield Mark(newest[1], "the newest checkpoint")
        size = newest[1].size if newest else 0
        checkpoints = read_checkpoints(connection, log, until=size)
        for step in as_marks(steps_of(read_entries(connection, log), checkpoints)):
            count += isinstance(step, Entry)
            if count and count % 50_000 == 0 and isinstance(step, Entry):
                note(f"{name}: {count} entries")
            yield step

    try:
        result = walk(steps(), log, expected=before)
    except SteadError as error:
        result = Broken(count + 1, str(error))
    if isinstance(result, Walked) and given is not None:
        again = verify(read_entries(connection, log), log, expected=given)
        result = result if isinstance(again, Verified) else again
    if isinstance(result, Walked):
        seen.save(log, result.head)
    return {"log": name, "entries": count, **_said(result)}


def _said(result: Walked | Broken) -> dict[str, Any]:
    if isinstance(result, Broken):
        reason = f"entry {result.seq}: {result.reason}"
        return {"state": "damaged", "signed": 0, "head": "", "reason": reason}
    at = f"{result.head.seq}:{result.head.hash.hex()}"
    return {"state": "ok", "signed": result.covered, "head": at, "reason": ""}


def _offline(app: App, file: Path, head: str, output: str) -> int:
    from controller.authority.authority import load_certificate
    from controller.cli.audit_offline import verify_file

    judged = verify_file(file, load_certificate(app.operator.root), parse_head(head))
    row = {"log": judged.header.name, "entries": judged.entries, **_said(judged.result)}
    row["checkpoint_at"] = judged.newest.at
    before = SeenHeads(app.operator.path / "audit").load(judged.newest.log)
    if before is not None and before.seq > judged.newest.size and row["state"] == "ok":
        row["state"] = "stale"
        row["reason"] = f"your profile has seen {before.seq} entries: it is older, or was cut"
    if judged.filtered:
        note("the export is filtered: that entries were left out cannot be noticed")
        row["head"] = ""
    emit([row], output, columns=(*COLUMNS, "checkpoint_at"))
    return {"ok": DONE, "stale": IN_PART}.get(row["state"], FAILED)


def _gone(log: str) -> dict[str, Any]:
    reason = "it was verified before, and the controller no longer lists it"
    empty = {"entries": 0, "signed": 0, "head": ""}
    return {"log": log or INSTALLATION_NAME, "state": "damaged", "reason": reason, **empty}
