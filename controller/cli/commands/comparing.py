"""`stead backup diff`: what differs between two restore points, or from the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machine_meant
from controller.cli.options.terms import acting_within, terms_of
from controller.cli.output.emit import emit, note, output_option, render_bytes
from controller.cli.output.exits import DONE
from controller.cli.output.flow import emit_flow
from controller.cli.points.changes import (
    SIGNS,
    Tally,
    change_row,
    kind_of,
)
from controller.cli.points.compared import Told, compared
from controller.cli.points.live import Answer, ask
from controller.cli.points.opened import (
    Opened,
    Readers,
    contents_of,
    open_point,
    point_meant,
    tree_path,
)
from protocol.errors import InvalidError, NotFoundError
from protocol.vault.differences import is_folder_time
from protocol.vault.path import below_range, tree_key

LIVE = "live"


@click.command("diff", epilog="Example: stead backup diff web-01 yesterday latest /etc")
@click.argument("machine")
@click.argument("old", metavar="POINT")
@click.argument("new", metavar="POINT", default="latest")
@click.argument("path", default="/")
@click.option("--with", "other", metavar="MACHINE", default="", help="Whose the second point is.")
@click.option("--stat", is_flag=True, help="Only how many, and how much.")
@click.option(
    "--quick",
    is_flag=True,
    help="Believe that files of one size and time are equal, and read none to be sure.",
)
@click.option(
    "--content", is_flag=True, help="With live: read files of one size and time too, to be sure."
)
@acting_within("1h")
@output_option
@click.pass_obj
def diff_command(
    app: App,
    /,
    machine: str,
    old: str,
    new: str,
    path: str,
    other: str,
    output: str,
    *,
    stat: bool,
    quick: bool,
    content: bool,
    **options: Any,
) -> int:
    """Say what was added (+), removed (-) and changed (~) from one restore point to another.

    Reads only the parts of the two trees that differ. Files of one length whose content is
    kept in different chunks are read and compared. A folder of which only the time changed
    is not listed.

    With `live` for the second POINT the machine compares the first with what it has now, by
    an order that gives it the right to read PATH: `stead backup diff web-01 latest live /etc`.
    The options for orders count then.
    """
    terms = terms_of(options)
    connection = app.connection
    is_live = new.lower() == LIVE
    if old.lower() == LIVE:
        raise InvalidError(
            f"name the restore point first: stead backup diff {machine} {new} {LIVE}"
        )
    if content and not is_live:
        raise InvalidError("--content is for `live`; between restore points all is compared")
    source = machine_meant(connection, machine, terms.tenant)
    target = machine_meant(connection, other, terms.tenant) if other else source
    readers: Readers = {}
    before = open_point(connection, point_meant(connection, source, old), readers)
    wanted = tree_path(path)
    tally = Tally()
    answer: Answer | None = None
    if is_live:
        answer = ask(
            before,
            contents_of(before),
            wanted,
            target,
            terms,
            content=content,
            quick=quick,
            output=output,
        )
        if answer is None:
            return DONE
        if not answer.task.result:
            return answer.code
        told = answer.told()
    else:
        after = open_point(connection, point_meant(connection, target, new), readers)
        told = told_below(before, after, wanted, quick=quick)
    code = DONE if answer is None else answer.code
    if stat:
        for change, _ in told:
            tally.add(kind_of(change), change)
        emit(tally.rows(), output, columns=("change", "entries", "files", "size_bytes"))
        return code
    show(told, tally, output, empty=f"{path} is the same in both")
    return code


def show(told: Iterable[Told], tally: Tally, output: str, *, empty: str) -> None:
    """Print changes as they are found, and what they come to."""
    count = emit_flow(
        _counted(told, tally),
        output,
        columns=("change", "what", "size_bytes", "path"),
        cells={
            "change": lambda row: SIGNS[row["change"]],
            "what": lambda row: " ".join(row["what"]),
        },
        empty=empty,
    )
    if count and output == "table":
        note(summary(tally))


def summary(tally: Tally) -> str:
    """A tally in one line."""
    return ", ".join(
        f"{tally.entries[kind]} {kind} ({render_bytes(tally.bytes[kind])})" for kind in SIGNS
    )


def told_below(before: Opened, after: Opened, path: bytes, *, quick: bool) -> Iterator[Told]:
    """The changes at a path and below it that are worth telling, with what changed.

    NOT_FOUND when the path is in neither.
    """
    if not any(_holds(one, path) for one in (before, after)):
        raise NotFoundError(
            f"/{path.decode(errors='backslashreplace')} is in neither restore point; "
            "`stead backup browse` shows what is"
        )
    key = tree_key(path)
    ranges = [(key, key + b"\0"), below_range(path)] if path else [below_range(path)]
    for keys in ranges:
        for change, what in compared(before, after, keys=keys, quick=quick):
            if not is_folder_time(change.old, change.new, what):
                yield change, what


def _holds(opened: Opened, path: bytes) -> bool:
    try:
        opened.reader.get(opened.root, path)
    except NotFoundError:
        return False
    return True


def _counted(told: Iterable[Told], tally: Tally) -> Iterator[dict[str, Any]]:
    for change, what in told:
        tally.add(kind_of(change), change)
        yield change_row(change, what)
