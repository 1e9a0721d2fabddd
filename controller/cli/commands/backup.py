"""`stead backup`: what is backed up, the restore points, and getting files back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.commands.backup_plan import plan
from controller.cli.commands.comparing import diff_command
from controller.cli.commands.looking import find, history, tree
from controller.cli.commands.mounting import mount
from controller.cli.commands.restoring import restore
from controller.cli.operator.choice import machine_meant, machines_meant
from controller.cli.options.choosing import choosing, rules_of, say_rules
from controller.cli.options.commanding import commanding, commands_of
from controller.cli.options.limiting import limit_of, limited
from controller.cli.options.spans import Span
from controller.cli.options.terms import acting, acting_within, terms_of
from controller.cli.options.usual import Times, tenant_option
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code, finish, say_failures
from controller.cli.orders.restored import SIZES, result_rows, say_left_out
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.entries import entry_row, machine_paths, render_name, stream_of, text_of
from controller.cli.output.exits import DONE, IN_PART
from controller.cli.output.flow import emit_flow
from controller.cli.output.standard_output import write_out
from controller.cli.points.graph import draw
from controller.cli.points.opened import (
    Listed,
    Opened,
    content,
    entry_at,
    is_directory,
    list_points,
    open_point,
    point_meant,
    roll_back_problem,
    tree_path,
)
from controller.cli.vault.drilling import drill, drilled, drills_of
from controller.cli.vault.keeping import add_retention
from protocol.action import RunBackup, SetBackup
from protocol.errors import InvalidError
from protocol.vault.entry import Entry, Kind
from protocol.vault.point import known


@click.group(epilog="Example: stead backup run all")
def command() -> None:
    """Backups: make, browse, restore."""


command.add_command(drill)
add_retention(command)
command.add_command(plan)


@command.command("set", epilog="Example: stead backup set all --path /etc --schedule daily")
@click.argument("selector")
@click.option("--path", "paths", multiple=True, required=True, help="Absolute; may be repeated.")
@click.option(
    "--schedule",
    type=Times(),
    default="",
    metavar="WHEN",
    help="hourly, daily, weekly, or a cron expression in the machine's own zone. Default: when "
    "ordered.",
)
@click.option(
    "--spread",
    type=Span(),
    help="Machines begin within this time of the schedule's, each at a moment of its own.",
)
@choosing
@limited
@commanding
@drilled
@acting
@output_option
@click.pass_obj
def set_(
    app: App,
    /,
    selector: str,
    paths: tuple[str, ...],
    schedule: str,
    spread: timedelta | None,
    output: str,
    **options: Any,
) -> int:
    """Say what machines back up and how often; takes the place of what was said before.

    A word such as daily means once a day, at a minute of each machine's own. An
    expression such as '30 2 * * 1-5' means half past two on working days, and with
    --spread 1h a moment of each machine's own between that and half past three. What
    was missed is caught up once, when the machine is back.
    """
    if spread is not None and not schedule:
        raise InvalidError("--spread needs a --schedule")
    terms = terms_of(options)
    limit = limit_of(options)
    drills = drills_of(options)
    rules = rules_of(options)
    action = SetBackup(
        machine_paths(paths),
        schedule,
        rules,
        seal_to_machine=drills.seal_to_machine,
        drills=drills.schedule,
        canaries=drills.canaries,
        spread_s=int(spread.total_seconds()) if spread is not None else 0,
        limit_upload=limit,
        commands=commands_of(options),
    )
    connection = app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    job = order_and_follow(connection, machines, action, terms, output=output, repeatable=True)
    for row in result_rows(job) if job is not None else ():
        if isinstance(row.get("rules"), dict):
            say_rules(row["machine"], row["rules"])
    return finish(job, output)


@command.command(epilog="Example: stead backup run web-01 --path /srv")
@click.argument("selector")
@click.option("--path", "paths", multiple=True, help="Instead of the backup set; may be repeated.")
@choosing
@limited
@commanding
@acting_within("24h")
@output_option
@click.pass_obj
def run(app: App, /, selector: str, paths: tuple[str, ...], output: str, **options: Any) -> int:
    """Make a restore point now. Exits 3 when something could not be read."""
    terms = terms_of(options)
    limit = limit_of(options)
    action = RunBackup(
        machine_paths(paths),
        rules_of(options),
        limit_upload=limit,
        commands=commands_of(options),
    )
    connection = app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    job = order_and_follow(connection, machines, action, terms, output=output, repeatable=True)
    if job is None:
        return DONE
    say_failures(job)
    rows = result_rows(job)
    columns = ["machine", "state", "point", "files", "bytes", "sent_bytes"]
    columns += ["skipped"] if any(row.get("skipped") for row in rows) else []
    emit(rows, output, columns=columns, cells=SIZES)
    for row in rows:
        say_left_out(row)
    return exit_code(job)


@command.command(epilog="Example: stead backup ls web-01 --graph")
@click.argument("machine")
@click.option("--graph", is_flag=True, help="Draw sizes and what each added, oldest first.")
@tenant_option
@output_option
@click.pass_obj
def ls(app: App, machine: str, tenant: str, output: str, *, graph: bool) -> int:
    """List a machine's restore points, newest first, each verified."""
    connection = app.connection
    found = machine_meant(connection, machine, tenant)
    listed = list_points(connection, found)
    rows = [point_row(point) for point in listed]
    columns = ["received_at", "point", "files", "bytes", "new_bytes"]
    columns += ["skipped"] if any(row["skipped"] for row in rows) else []
    columns += ["state"] if any(row["problem"] for row in rows) else []
    if graph and rows and output == "table":
        draw(rows)
    else:
        emit(
            rows,
            output,
            columns=columns,
            cells=SIZES,
            empty=f"{found.name} has no restore point yet; `stead backup run {found.name}` makes "
            "one",
        )
    for point in listed:
        if point.problem:
            note(f"{point.id} is not to be believed: {point.problem}")
    rolled_back = roll_back_problem(connection, found, listed[0] if listed else None)
    if rolled_back:
        note(rolled_back)
    return IN_PART if rolled_back or any(point.problem for point in listed) else DONE


@command.command(epilog="Example: stead backup browse web-01 latest /etc")
@click.argument("machine")
@click.argument("point", metavar="POINT")
@click.argument("path", default="/")
@click.option("--recursive", "-R", is_flag=True, help="Everything below, at any depth.")
@tenant_option
@output_option
@click.pass_obj
def browse(
    app: App, machine: str, point: str, path: str, recursive: bool, tenant: str, output: str
) -> None:
    """List what lies in a restore point, like `ls -l`."""
    opened = _open(app, machine, point, tenant)
    wanted = tree_path(path)
    entry = entry_at(opened, wanted)
    found: Iterable[tuple[bytes, Entry]] = [(wanted.rpartition(b"/")[0], entry)]
    if is_directory(entry):
        reader = opened.reader
        listed = reader.below if recursive else reader.list_directory
        found = listed(opened.root, wanted)
    emit_flow(
        (entry_row(parent, one) for parent, one in found if one.name),
        output,
        columns=("mode", "owner", "group", "size_bytes", "modified_at", "name"),
        cells={"name": lambda row: render_name(row, whole=recursive)},
        empty=f"{path} is empty",
    )


@command.command(epilog="Example: stead backup cat web-01 latest /etc/hosts")
@click.argument("machine")
@click.argument("point", metavar="POINT")
@click.argument("path")
@click.option("--stream", metavar="NAME", help="A named stream of a file or folder instead.")
@tenant_option
@click.pass_obj
def cat(app: App, machine: str, point: str, path: str, stream: str | None, tenant: str) -> None:
    """Write one file of a restore point to standard output, read here, not on the machine."""
    opened = _open(app, machine, point, tenant)
    entry = entry_at(opened, tree_path(path))
    if stream is not None:
        entry = stream_of(entry, stream)
    if entry.kind is not Kind.FILE:
        raise InvalidError(f"{path} is no file but a {entry.kind.name.lower()}")
    for piece in content(opened, entry):
        write_out(piece)
    write_out(b"")


def point_row(listed: Listed) -> dict[str, Any]:
    """A restore point as a record; figures are null when it is not to be believed."""
    point = listed.point
    totals = point.totals if point is not None else None
    return {
        "point": listed.id,
        "received_at": listed.received_at,
        "started_at": point.started_at if point is not None else None,
        "state": "ok" if point is not None else "damaged",
        "problem": listed.problem,
        "paths": None if listed.paths is None else list(map(text_of, listed.paths)),
        "files": totals.files if totals is not None else None,
        "bytes": totals.bytes if totals is not None else None,
        "stream_bytes": known(totals.stream_bytes) if totals is not None else None,
        "new_bytes": totals.new_bytes if totals is not None else None,
        "skipped": totals.skipped if totals is not None else None,
        "detector": point.detector if point is not None else None,
    }


def _open(app: App, machine: str, point: str, tenant: str) -> Opened:
    connection = app.connection
    found = machine_meant(connection, machine, tenant)
    return open_point(connection, point_meant(connection, found, point))


for added in (tree, find, history, diff_command, mount, restore):
    command.add_command(added)
