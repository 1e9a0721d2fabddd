"""`stead audit export`: a log in a file that proves itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import rich_click as click

from controller import clock
from controller.audit.chain import Entry
from controller.audit.wanted import Wanted
from controller.cli.app import App
from controller.cli.audit.checking import check_file
from controller.cli.audit.file import VERSION, CheckpointLine, End, Header, line_of, write_line
from controller.cli.audit.reading import (
    INSTALLATION_NAME,
    fresh_checkpoint,
    log_named,
    read_checkpoints,
    read_entries,
    steps_of,
    wanted_of,
)
from controller.cli.new_file import new_file
from controller.cli.operator.connection import Connection
from controller.cli.options.usual import Moment
from controller.cli.output.emit import note
from controller.cli.output.exits import DONE, FAILED
from protocol.checkpoint import Checkpoint
from protocol.errors import Code, SteadError
from protocol.v1.operator_pb2 import ProveAuditRequest

F = TypeVar("F", bound=Callable[..., Any])
PROOFS_AT_ONCE = 500
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def wanting(command: F) -> F:
    """Add the options that choose among entries."""
    options = (
        click.option("--since", type=Moment(), help="Not what is older: 2h, monday, 2026-05-01."),
        click.option("--until", type=Moment(), help="Only what is older than this."),
        click.option("--event", metavar="NAME", default="", help="Only this event."),
        click.option("--actor", metavar="NAME", default="", help="Only by this one."),
        click.option("--machine", metavar="NAME", default="", help="Only by or about it."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog="Example: stead audit export --tenant acme --output-file acme.audit")
@click.option(
    "--tenant",
    metavar="NAME",
    default=INSTALLATION_NAME,
    show_default=True,
    help="A tenant's log, or the installation's own.",
)
@click.option(
    "--output-file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="A new file; one that is there is not replaced.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(("json", "csv")),
    default="json",
    show_default=True,
    help="JSON lines prove themselves; CSV is for people.",
)
@wanting
@click.pass_obj
def export(
    app: App,
    /,
    tenant: str,
    output_file: Path,
    kind: str,
    **choice: Any,
) -> int:
    """Write a log into a file, which `stead audit verify --from` checks without a controller.

    A whole log comes with all its checkpoints, a filtered one with a proof for each entry. It
    is verified once it is written: one that does not hold stays as evidence, and the exit code
    is 1.
    """
    connection = app.connection
    log, name = log_named(connection, tenant)
    wanted = wanted_of(connection, log, **choice)
    newest = fresh_checkpoint(connection, log)
    if newest is None:
        raise SteadError(f"the log {name} has no entries to export", code=Code.NOT_FOUND)
    with new_file(output_file) as file:
        if kind == "csv":
            entries = read_entries(connection, log, until=newest[1].size, wanted=wanted)
            count = _csv(file, entries)
        else:
            header = Header(
                version=VERSION,
                log=log,
                name=name,
                exported_at=clock.now(),
                checkpoint=newest[0].hex(),
                filter=None if wanted.everything else wanted.in_words(),
            )
            write_line(file, header)
            write = _whole if wanted.everything else _chosen
            count = write(connection, file, newest[1], wanted)
            write_line(file, End(count))
    note(f"{count} entries of {name} are in {output_file}")
    if kind == "csv":
        note("CSV proves nothing: it is for people")
        return DONE
    row = check_file(app, output_file, heads=(), tenant=log or INSTALLATION_NAME, root=None)
    if row["state"] == "ok":
        note(f"signed at {newest[1].at:%Y-%m-%d %H:%M:%S}Z, and verified")
        return DONE
    note(f"it does not hold: {row['reason']}; keep it as evidence")
    return FAILED


def _whole(connection: Connection, file: IO[bytes], newest: Checkpoint, wanted: Wanted) -> int:
    del wanted
    count = 0
    entries = read_entries(connection, newest.log, until=newest.size)
    for step in steps_of(entries, read_checkpoints(connection, newest.log, until=newest.size)):
        if isinstance(step, Entry):
            count += 1
            write_line(file, line_of(step))
        else:
            write_line(file, CheckpointLine(step[0].hex()))
        if isinstance(step, Entry) and count % 50_000 == 0:
            note(f"{count} of {newest.size} entries")
    return count


def _chosen(connection: Connection, file: IO[bytes], newest: Checkpoint, wanted: Wanted) -> int:
    count = 0
    entries = read_entries(connection, newest.log, until=newest.size, wanted=wanted)
    while page := list(islice(entries, PROOFS_AT_ONCE)):
        request = ProveAuditRequest(
            tenant_id=newest.log, size=newest.size, sequences=[one.seq for one in page]
        )
        proofs = connection.audit.ProveAudit(request).proofs
        for entry, proof in zip(page, proofs, strict=True):
            write_line(file, line_of(entry, list(proof.hashes)))
        count += len(page)
    return count


def _csv(file: IO[bytes], entries: Iterator[Entry]) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    out = csv.writer(text)
    out.writerow(("sequence", "at", "actor", "event", "body", "hash"))
    count = 0
    for entry in entries:
        count += 1
        cells = (entry.at.isoformat(), entry.actor, entry.event, entry.body, entry.hash.hex())
        out.writerow((entry.seq, *(_inert(cell) for cell in cells)))
    text.detach()
    return count


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell
