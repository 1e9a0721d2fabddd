"""`stead backup tree`, `find` and `history`: look into restore points without the machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machine_meant
from controller.cli.operator.connection import Connection
from controller.cli.options.usual import Moment, tenant_option
from controller.cli.output.emit import note, output_option
from controller.cli.output.entries import entry_row, render_name
from controller.cli.output.exits import DONE, IN_PART
from controller.cli.output.flow import emit_flow
from controller.cli.output.meter import meter
from controller.cli.points.compared import compared
from controller.cli.points.folders import folder_rows
from controller.cli.points.opened import (
    Listed,
    Opened,
    Readers,
    entry_at,
    list_points,
    open_point,
    point_meant,
    roll_back_problem,
    tree_path,
)
from controller.cli.points.versions import Seen, look, version_row, versions
from controller.cli.points.wanted import KINDS, Wanted, names_pattern, parse_size, to_ns
from protocol.errors import InvalidError, NotFoundError, SteadError
from protocol.v1.operator_pb2 import Machine
from protocol.vault.entry import Entry
from protocol.vault.path import below_range
from protocol.vault.reader import Span

ALL = "all"
Found = tuple[bytes, Entry]


class Size(click.ParamType):  # type: ignore[type-arg]
    """A size such as 300, 20k or 1.5M."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it; click says what was wrong."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except InvalidError as error:
            self.fail(str(error), param, ctx)


@click.command(epilog="Example: stead backup tree web-01 latest /srv --depth 2")
@click.argument("machine")
@click.argument("point", metavar="POINT")
@click.argument("path", default="/")
@click.option("--depth", type=click.IntRange(0, 100), default=2, show_default=True, help="Levels.")
@click.option("--files", is_flag=True, help="Show files and all else beside folders.")
@click.option("--largest", is_flag=True, help="The largest first, instead of by name.")
@tenant_option
@output_option
@click.pass_obj
def tree(
    app: App,
    /,
    machine: str,
    point: str,
    path: str,
    depth: int,
    tenant: str,
    output: str,
    *,
    files: bool,
    largest: bool,
) -> None:
    """Show the folders of a restore point with the size of all that is below each."""
    connection = app.connection
    found = machine_meant(connection, machine, tenant)
    opened = open_point(connection, point_meant(connection, found, point))
    wanted = tree_path(path)
    top = entry_at(opened, wanted)
    rows = folder_rows(opened, wanted, top, depth=depth, files=files, largest=largest)
    emit_flow(
        rows,
        output,
        columns=("size_bytes", "files", "name"),
        cells={"name": lambda row: str(row["name"])},
    )


@click.command(epilog="Example: stead backup find web-01 all /home --name '*.odt' --since 30d")
@click.argument("machine")
@click.argument("point", metavar="POINT|all")
@click.argument("path", default="/")
@click.option(
    "--name", "names", multiple=True, metavar="PATTERN", help="Such as '*.jpg'; may be repeated."
)
@click.option("--type", "kind", type=click.Choice(sorted(KINDS)), help="Only this type.")
@click.option("--larger", type=Size(), help="Files of at least this size, such as 20M.")
@click.option("--smaller", type=Size(), help="Files of at most this size.")
@click.option("--since", type=Moment(), help="Modified at this time or later.")
@click.option("--until", type=Moment(), help="Modified at this time or before.")
@tenant_option
@output_option
@click.pass_obj
def find(
    app: App,
    /,
    machine: str,
    point: str,
    path: str,
    names: tuple[str, ...],
    kind: str | None,
    larger: int | None,
    smaller: int | None,
    since: datetime | None,
    until: datetime | None,
    tenant: str,
    output: str,
) -> int:
    """Find files in a restore point, or with `all` in every one of a machine.

    With `all`, each version of a file is listed once, with the newest restore point that
    has it. Only parts of the trees that can hold what is looked for, and that are not in a
    newer restore point as they are, are read.
    """
    wanted = Wanted(
        names_pattern(names),
        KINDS[kind] if kind else None,
        larger,
        smaller,
        to_ns(since),
        to_ns(until),
    )
    connection = app.connection
    found = machine_meant(connection, machine, tenant)
    below = tree_path(path)
    search = _Search(connection, found, below, wanted)
    is_all = point.lower() == ALL
    rows = search.everywhere() if is_all else search.in_one(point)
    columns = ("size_bytes", "modified_at", *(("last_seen_at",) if is_all else ()), "name")
    emit_flow(
        rows,
        output,
        columns=columns,
        cells={"name": lambda row: render_name(row, whole=True)},
        empty=f"nothing of the kind is in {path}",
    )
    return IN_PART if search.problems else DONE


class _Search:
    """A search of one machine's restore points; `problems` counts those it left out."""

    def __init__(
        self, connection: Connection, machine: Machine, path: bytes, wanted: Wanted
    ) -> None:
        self._connection = connection
        self._machine = machine
        self._path = path
        self._wanted = wanted
        self.problems = 0

    def in_one(self, name: str) -> Iterator[dict[str, Any]]:
        """What fits in one restore point."""
        point = point_meant(self._connection, self._machine, name)
        opened = open_point(self._connection, point)
        entry_at(opened, self._path)
        for parent, entry in self._whole(opened):
            yield {**entry_row(parent, entry), "point": point.id}

    def everywhere(self) -> Iterator[dict[str, Any]]:
        """What fits in any, each version in the newest that has it."""
        newer: Opened | None = None
        listed = list_points(self._connection, self._machine)
        with meter("find", len(listed), unit="") as told:
            for place, (one, opened) in enumerate(self._each(listed)):
                told(place, one.id)
                found = self._whole(opened) if newer is None else self._gone(opened, newer)
                for parent, entry in found:
                    yield {
                        **entry_row(parent, entry),
                        "point": one.id,
                        "last_seen_at": one.received_at,
                    }
                newer = opened

    def _each(self, listed: list[Listed]) -> Iterator[tuple[Listed, Opened]]:
        for one, opened in each_opened(self._connection, self._machine, listed):
            if opened is None:
                self.problems += 1
            else:
                yield one, opened

    def _whole(self, opened: Opened) -> Iterator[Found]:
        span = Span((opened.root,), *below_range(self._path))
        wanted = self._wanted
        for parent, entry in opened.reader.read(span, wanted=wanted.may_be_below):
            if entry.name and wanted.fits(entry):
                yield parent, entry

    def _gone(self, older: Opened, newer: Opened) -> Iterator[Found]:
        """What fits and is in the older point as it is not in the newer one."""
        keys, wanted = below_range(self._path), self._wanted.may_be_below
        for change, _ in compared(older, newer, keys=keys, wanted=wanted):
            old = change.old
            if old is not None and old.name and self._wanted.fits(old):
                yield change.parent, old


@click.command(epilog="Example: stead backup history web-01 /etc/nginx/nginx.conf")
@click.argument("machine")
@click.argument("path")
@click.option("--every", is_flag=True, help="A line for each restore point.")
@tenant_option
@output_option
@click.pass_obj
def history(app: App, /, machine: str, path: str, tenant: str, output: str, *, every: bool) -> int:
    """List the versions of a file or a folder, newest first, over all restore points.

    Neighbouring restore points with the same version are taken together.
    """
    connection = app.connection
    found = machine_meant(connection, machine, tenant)
    wanted = tree_path(path)
    listed = list_points(connection, found)
    if not listed:
        raise NotFoundError(
            f"{found.name} has no restore point yet; `stead backup run {found.name}` makes one"
        )
    rolled_back = roll_back_problem(connection, found, listed[0])
    problems = int(bool(rolled_back))

    def seen() -> Iterator[Seen]:
        nonlocal problems
        with meter("history", len(listed), unit="") as told:
            for place, (one, opened) in enumerate(each_opened(connection, found, listed)):
                told(place, one.id)
                if opened is None:
                    problems += 1
                else:
                    yield look(one.id, one.received_at, opened, wanted)

    rows = [version_row(wanted, one) for one in versions(wanted, seen(), every=every)]
    if not any(row["state"] == "there" for row in rows):
        raise NotFoundError(
            f"/{wanted.decode(errors='backslashreplace')} is in no restore point of {found.name}; "
            "`stead backup find` looks for a part of a name"
        )
    columns = ("received_at", "since_at", "points", "size_bytes", "modified_at", "state")
    emit_flow(rows, output, columns=columns)
    if rolled_back:
        note(rolled_back)
    return IN_PART if problems else DONE


def each_opened(
    connection: Connection, machine: Machine, listed: list[Listed]
) -> Iterator[tuple[Listed, Opened | None]]:
    """Every restore point of a listing, opened; None, and a note, for what cannot be."""
    readers: Readers = {}
    for one in listed:
        try:
            if one.point is None:
                note(f"{one.id} of {machine.name} is not to be believed: {one.problem}")
                yield one, None
            else:
                yield one, open_point(connection, one.point, readers)
        except SteadError as error:
            note(f"{one.id} of {machine.name} cannot be opened: {error}")
            yield one, None
