"""`stead backup restore`: have a machine write files from a restore point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.operator.choice import machine_meant
from controller.cli.operator.connection import Connection
from controller.cli.options.choosing import Size
from controller.cli.options.terms import Terms, acting_within, terms_of
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code as exit_code_of
from controller.cli.orders.outcomes import say_failures
from controller.cli.orders.restored import (
    SIZES,
    preview,
    result_rows,
    say_kept,
    say_left_out,
    say_not_backed_up,
)
from controller.cli.output.asking import ask, require_somebody
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.entries import machine_paths, text_of
from controller.cli.output.exits import DONE, FAILED
from controller.cli.points.granting import granted
from controller.cli.points.opened import Opened, entry_at, open_point, point_meant, tree_path
from protocol.action import PlanRestore, RestoreFiles, RestorePart
from protocol.codec import to_ms
from protocol.errors import Code, InvalidError, SteadError
from protocol.v1.operator_pb2 import Machine


@click.command(epilog="Example: stead backup restore web-01 latest /etc/hosts --to /tmp/back")
@click.argument("machine")
@click.argument("point", metavar="POINT")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--to", "target", default="", metavar="DIRECTORY", help="On the machine.")
@click.option("--in-place", is_flag=True, help="Where it was; writes only what differs.")
@click.option("--onto", metavar="MACHINE", default="", help="Restore onto this machine instead.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@click.option(
    "--delete-extra",
    is_flag=True,
    help="Remove what the restore point does not have; shows it and asks, unless --yes.",
)
@click.option(
    "--owners",
    type=click.Choice(["name", "number", "none"]),
    default="name",
    help="Whom things belong to; by number where a name is not known.",
)
@click.option("--verify", is_flag=True, help="Compare the content of what looks the same.")
@click.option("--flags", is_flag=True, help="Set immutable and append-only flags again.")
@click.option(
    "--limit-download",
    type=Size(at_least=16 * 1024),
    metavar="SIZE",
    help="The machine fetches at most so much a second, as 10M.",
)
@acting_within("24h")
@output_option
@click.pass_obj
def restore(
    app: App,
    /,
    machine: str,
    point: str,
    paths: tuple[str, ...],
    target: str,
    in_place: bool,
    onto: str,
    overwrite: bool,
    delete_extra: bool,
    owners: str,
    flags: bool,
    verify: bool,
    limit_download: int | None,
    output: str,
    **options: Any,
) -> int:
    """Write files and folders from a restore point into a directory of a machine.

    Each PATH arrives in DIRECTORY under its own last name: /etc/hosts as DIRECTORY/hosts. What
    is the same there already is left alone. --dry-run has the machine look and say what
    would change: `stead backup restore web-01 latest /etc --in-place --dry-run`.

    With --delete-extra, what is below a PATH and not in the restore point is removed, but for
    what the backup's rules leave out and what came or changed after you were shown it; with
    --yes, after the order was signed.

    The order carries the right to read these paths and nothing else, sealed to the machine
    that restores.
    """
    terms = terms_of(options)
    connection = app.connection
    source = machine_meant(connection, machine, terms.tenant)
    target_machine = machine_meant(connection, onto, terms.tenant) if onto else source
    if in_place == bool(target):
        raise InvalidError("say either --to DIRECTORY or --in-place")
    if delete_extra and not (in_place or overwrite):
        raise InvalidError("--delete-extra goes with --in-place or with --overwrite")
    opened = open_point(connection, point_meant(connection, source, point))
    parts = _parts(opened, paths, target, target_machine)
    action = RestoreFiles(
        point_id=opened.point.id,
        path=parts[0].path,
        sealed_references=parts[0].sealed_references,
        target=parts[0].target,
        overwrite=overwrite or in_place,
        # Nothing means the same, and older agents know no such field.
        owners="" if owners == "name" else owners,
        flags=flags,
        verify=verify,
        parts=tuple(parts[1:]),
        limit_download=limit_download or 0,
    )
    if delete_extra:
        skipped = skipped_below(opened, [part.path for part in parts])
        action = replace(action, delete_extra=True, rules=opened.point.rules, skipped=skipped)
    if terms.dry_run:
        looked = replace(terms, dry_run=False)
        return preview(connection, target_machine, plan_of(action), looked, output).code
    if delete_extra:
        shown = 0 if terms.yes else _ask(connection, target_machine, action, terms)
        action = replace(action, looked_at_ms=earlier(shown, to_ms(clock.now())))
    job = order_and_follow(connection, [target_machine], action, terms, output=output)
    if job is None:
        return DONE
    say_failures(job)
    arrived = [text_of(arrival(part.target, part.path)) for part in parts]
    rows = [{**row, "target": arrived[0], "targets": arrived} for row in result_rows(job)]
    removed = ["removed"] if delete_extra else []
    columns = ("machine", "state", "seconds", "files", "bytes", "same", *removed, "target")
    cells = {**SIZES, "target": lambda row: " ".join(row["targets"])}
    emit(rows, output, columns=columns, cells=cells)
    if output == "table":
        say_not_backed_up(opened.skipped, [part.path for part in parts])
    below = text_of(parts[0].target.rstrip(b"/")) if len(parts) == 1 else ""
    for row in rows:
        say_left_out(row, below=below)
        say_kept(row, "left", below=below)
    return exit_code_of(job)


def _ask(connection: Connection, machine: Machine, action: RestoreFiles, terms: Terms) -> int:
    """Show what would change and have the person agree; when the machine looked, in ms.

    INVALID when there is nobody to ask.
    """
    require_somebody("--delete-extra removes files.", first="look with --dry-run")
    shown = preview(connection, machine, plan_of(action), replace(terms, wait=True), "table")
    if shown.code != DONE:
        note("The restore was not ordered.")
        raise SystemExit(FAILED)
    ask("Do this?", yes=False)
    return shown.looked_at_ms


def earlier(shown_ms: int, now_ms: int) -> int:
    """When somebody knew what is there, in ms: what a machine says, and at most now.

    >>> earlier(5, 9), earlier(12, 9), earlier(0, 9)
    (5, 9, 9)
    """
    return min(shown_ms or now_ms, now_ms)


def plan_of(action: RestoreFiles) -> PlanRestore:
    """The order that says what another would do."""
    return PlanRestore(**{name: getattr(action, name) for name in RestoreFiles.__slots__})


def _parts(
    opened: Opened, paths: Sequence[str], target: str, machine: Machine
) -> list[RestorePart]:
    """What goes where; INVALID when two things would arrive at the same place."""
    parts: list[RestorePart] = []
    arrived: dict[bytes, str] = {}
    for path in paths:
        wanted = tree_path(path)
        entry_at(opened, wanted)
        (directory,) = machine_paths((target,)) if target else (b"/" + wanted.rpartition(b"/")[0],)
        place = arrival(directory, wanted)
        # In place what lies in each other is the same; elsewhere only / arrives around others.
        nested = (one for one in arrived if touches(one, place) or touches(place, one))
        other = next(nested, None) if target else (place if place in arrived else None)
        if other is not None:
            raise InvalidError(
                f"{arrived[other]} and {path} would both become {text_of(max(place, other))}; "
                "restore them with two orders, to different directories"
            )
        arrived[place] = path
        parts.append(RestorePart(wanted, (granted(opened, wanted, machine),), directory))
    return parts


def skipped_below(opened: Opened, paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """What the backup did not read of these paths.

    PRECONDITION when the restore point does not name all of it: what is not named cannot be
    told from what is new.
    """
    if opened.point.totals.skipped > len(opened.skipped):
        raise SteadError(
            f"the backup skipped {opened.point.totals.skipped} things, and the restore point names "
            f"{len(opened.skipped)} of them: nobody can tell the others from what is new; restore "
            "without --delete-extra",
            code=Code.PRECONDITION,
        )
    # Also what lies above: all of a directory that could not be read.
    return tuple(
        path
        for one in opened.skipped
        if any(
            touches(path := one.path.strip(b"/"), wanted) or touches(wanted, path)
            for wanted in paths
        )
    )


def touches(directory: bytes, path: bytes) -> bool:
    """Whether a path of a tree is a directory or lies below it.

    >>> touches(b"etc", b"etc/hosts"), touches(b"etc", b"etcetera"), touches(b"", b"etc")
    (True, False, True)
    """
    return not directory or path == directory or path.startswith(directory + b"/")


def arrival(directory: bytes, path: bytes) -> bytes:
    """Where a path of a restore point arrives in a directory of a machine.

    >>> arrival(b"/tmp/back/", b"etc/hosts"), arrival(b"/", b"etc"), arrival(b"/back", b"")
    (b'/tmp/back/hosts', b'/etc', b'/back')
    """
    return (directory.rstrip(b"/") + b"/" + path.rpartition(b"/")[2]).rstrip(b"/") or b"/"
