"""`stead audit`: read the log, and prove that nobody changed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.audit.checking import check_file, check_log, check_marks, gone
from controller.cli.audit.file import write_line
from controller.cli.audit.heads import SeenHeads, parse_heads
from controller.cli.audit.reading import (
    INSTALLATION_NAME,
    all_logs,
    log_named,
    newest_entries,
    render_body,
    wanted_of,
)
from controller.cli.audit.witnessing import Witnessed, ask_witnesses
from controller.cli.commands.audit_compare import compare, root_certificate_option
from controller.cli.commands.audit_export import export, wanting
from controller.cli.new_file import new_file
from controller.cli.operator.choice import machines_meant
from controller.cli.options.terms import acting, terms_of
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import finish
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.exits import DONE, FAILED, IN_PART
from protocol.action import ResetWitness
from protocol.errors import InvalidError

COLUMNS = ("log", "state", "entries", "signed", "head", "reason")


@click.group(epilog="Example: stead audit verify")
def command() -> None:
    """Read and verify the audit log."""


command.add_command(compare)
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
    /,
    tenant: str,
    limit: int,
    output: str,
    **choice: Any,
) -> None:
    """Show the newest entries of a log that fit, oldest first."""
    connection = app.connection
    log, _ = log_named(connection, tenant)
    wanted = wanted_of(connection, log, **choice)
    rows = [
        {
            "sequence": entry.seq,
            "at": entry.at,
            "actor": entry.actor,
            "event": entry.event,
            "body": entry.body,
            "hash": entry.hash,
        }
        for entry in newest_entries(connection, log, wanted, limit)
    ]
    emit(
        rows,
        output,
        columns=("sequence", "at", "actor", "event", "body"),
        cells={"body": lambda row: render_body(row["body"])},
        empty="no entries",
    )


@command.command("verify", epilog="Example: stead audit verify --tenant acme --head 41:9f86d0…")
@click.option(
    "--tenant",
    metavar="NAME",
    default="",
    help="Only this log; with --from its id, since a name in a file proves nothing.",
)
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
@root_certificate_option
@output_option
@click.pass_obj
def verify_(
    app: App, tenant: str, head: str, file: Path | None, root: Path | None, output: str
) -> int:
    """Recompute the chain and the tree of every log that you may see.

    Each must go through every checkpoint that the controller signed. The heads that were
    seen are kept in your profile, and every later log must go through them: so one that was
    cut or rewritten since is found out as well. `stead audit witness` asks machines, too.
    """
    if file is not None:
        row = check_file(app, file, heads=parse_heads(head), tenant=tenant, root=root)
        emit([row], output, columns=(*COLUMNS, "checkpoint_at", "id"))
        return {"ok": DONE, "stale": IN_PART, "distrusted": IN_PART}.get(row["state"], FAILED)
    if root is not None:
        raise InvalidError("--root-certificate belongs to --from; a profile has its own")
    if head and not tenant:
        raise InvalidError("--head belongs to one log: name it with --tenant")
    logs = [log_named(app.connection, tenant)] if tenant else all_logs(app.connection)
    seen = SeenHeads(app.operator.path / "audit")
    heads = parse_heads(head)
    rows = [check_log(app.connection, seen, log, name, heads=heads) for log, name in logs]
    if not tenant:
        rows += [gone(log) for log in sorted(seen.logs() - {log for log, _ in logs})]
    emit(rows, output, columns=COLUMNS)
    return DONE if all(row["state"] == "ok" for row in rows) else FAILED


@command.command(epilog="Example: stead audit witness all --tenant acme")
@click.argument("selector")
@click.option(
    "--output-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the signed answers into a new file, for `stead audit compare`.",
)
@acting
@output_option
@click.pass_obj
def witness(
    app: App, /, selector: str, output_file: Path | None, output: str, **options: Any
) -> int:
    """Ask machines which checkpoints they keep, and verify the logs against them.

    The controller carries the question and can keep answers back, or make them where it has
    what proves them: such machines are named, and the exit code is 3.
    """
    terms, connection = terms_of(options), app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    found = ask_witnesses(connection, machines, terms, output)
    if found is None:
        return DONE
    if output_file is not None:
        with new_file(output_file) as file:
            for answer in found.answers:
                write_line(file, answer)
    for line in (*found.alarms, *found.in_words()):
        note(line)
    note(f"{len(found.answers)} of {len(machines)} machines were heard")
    rows = _held_against(app, found)
    emit(rows, output, columns=(*COLUMNS[:4], "witnesses", "reason"), empty="nothing is kept yet")
    if found.alarms or any(row["state"] != "ok" for row in rows):
        return FAILED
    return IN_PART if found.in_words() or not rows else DONE


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
            row = check_log(app.connection, seen, log, names[log], marks=marks)
        else:
            row = check_marks(log, marks)
        rows.append({**row, "witnesses": len(marks)})
    return rows
