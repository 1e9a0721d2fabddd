"""`stead backup drill`: have machines prove that their backups restore, and see who did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import (
    known_machines,
    machine_meant,
    machines_meant,
    tenant_named,
)
from controller.cli.options.terms import acting_within, terms_of
from controller.cli.options.usual import tenant_option
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code, result_of, say_failures, task_rows
from controller.cli.output.emit import (
    Row,
    emit,
    from_wire_ms,
    note,
    output_option,
    render_bytes,
)
from controller.cli.output.exits import DONE, IN_PART
from protocol.action import RunDrill
from protocol.errors import InvalidError
from protocol.v1.proof_pb2 import Drill, ListDrillsRequest

F = TypeVar("F", bound=Callable[..., Any])

NEVER = "never"
SCHEDULES = ("daily", "weekly", "monthly", NEVER)
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Drills:
    """What a backup set says of drills."""

    schedule: str
    seal_to_machine: bool
    canaries: tuple[bytes, ...]


def drilled(command: F) -> F:
    """Add the options with which a backup set says how it is drilled."""
    for option in (
        click.option(
            "--canary",
            "canaries",
            multiple=True,
            metavar="FILE",
            help="A file that every drill restores; may be repeated.",
        ),
        click.option(
            "--own-key/--no-own-key",
            default=None,
            help="Whether the machine's own key opens its restore points, which drills need. "
            "Default: with drills.",
        ),
        click.option(
            "--drill",
            "drill_schedule",
            type=click.Choice(SCHEDULES),
            default="weekly",
            show_default=True,
            help="How often the machine proves that its newest restore point restores.",
        ),
    ):
        command = option(command)
    return command


def drills_of(options: dict[str, Any]) -> Drills:
    """What was said of drills, taken out of a command's options; INVALID for a contradiction."""
    schedule = options.pop("drill_schedule")
    own_key = options.pop("own_key")
    canaries = options.pop("canaries")
    if schedule != NEVER and own_key is False:
        raise InvalidError(
            "a machine without its own key cannot open its restore points: add --drill never"
        )
    for path in canaries:
        if not path.startswith("/") or "\0" in path:
            raise InvalidError(f"{path[:200]!r} is not an absolute path")
    return Drills(
        "" if schedule == NEVER else schedule,
        schedule != NEVER if own_key is None else own_key,
        tuple(path.encode(errors="surrogateescape") for path in canaries),
    )


class RunByDefault(click.RichGroup):
    """A word that is no subcommand is what `run` is for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """`drill web-01` is `drill run web-01`."""
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=RunByDefault,
    epilog="Example: stead backup drill web-01",
    subcommand_metavar="SELECTOR | ls",
)
def drill() -> None:
    """Prove that backups restore: a machine restores some files and compares them.

    `stead backup drill SELECTOR` has it done now; `stead backup drill ls` says who did.
    """


@drill.command(epilog="Example: stead backup drill run all --yes")
@click.argument("selector")
@click.option("--point", default="", metavar="POINT", help="Default: the newest.")
@click.option("--files", type=click.IntRange(1, 10_000), default=60, show_default=True)
@click.option("--canary", "canaries", multiple=True, metavar="FILE", help="In any case this one.")
@acting_within("2h")
@output_option
@click.pass_obj
def run(
    app: App,
    /,
    selector: str,
    point: str,
    files: int,
    canaries: tuple[str, ...],
    output: str,
    **options: Any,
) -> int:
    """Restore some files into a folder that is removed again, and compare them.

    The newest, random ones and the canaries: with what was recorded, and with the live
    file where that is unchanged. The machine's key has to open its restore points.
    """
    terms = terms_of(options)
    action = RunDrill(
        point_id=point,
        max_files=files,
        canaries=tuple(path.encode(errors="surrogateescape") for path in canaries),
    )
    connection = app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    job = order_and_follow(connection, machines, action, terms, output=output, repeatable=True)
    if job is None:
        return DONE
    say_failures(job)
    rows = []
    for row, task in zip(task_rows(job), job.tasks, strict=True):
        row.pop("seconds")
        rows.append({**row, **result_of(task)})
    emit(
        rows,
        output,
        columns=("machine", "state", "files", "size", "took", "compared", "wrong"),
        cells={"size": _size, "took": _took},
    )
    for row in rows:
        for one in (row.get("details") or [])[:SHOWN]:
            note(f"{row['machine']}: {one.get('path')}: {one.get('reason')}")
    return exit_code(job)


@drill.command(epilog="Example: stead backup drill ls web-01")
@click.argument("machine", default="")
@click.option("--samples", is_flag=True, help="What was decoded again after backups, instead.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@tenant_option
@output_option
@click.pass_obj
def ls(app: App, machine: str, *, samples: bool, limit: int, tenant: str, output: str) -> int:
    """List drills, newest first. Exits 3 when one of them was not good."""
    connection = app.connection
    found = machine_meant(connection, machine, tenant) if machine else None
    request = ListDrillsRequest(
        tenant_id=tenant_named(connection, tenant).tenant_id if tenant else "",
        machine_id=found.machine_id if found is not None else "",
        kind="sample" if samples else "drill",
        limit=limit,
    )
    machines, _ = known_machines(connection, "", brief=True)
    names = {one.machine_id: one.name for one in machines}
    rows = [drill_row(one, names) for one in connection.proofs.ListDrills(request).drills]
    emit(
        rows,
        output,
        columns=("received_at", "machine", "state", "files", "size", "took", "compared", "wrong"),
        cells={"size": _size, "took": _took},
        empty="no machine has made a drill yet; `stead backup drill all` has them made",
    )
    for row in rows if output == "table" else ():
        if row["state"] != "good":
            note(f"{row['machine']}: {row['message']}")
    return IN_PART if any(row["state"] != "good" for row in rows) else DONE


def drill_row(one: Drill, names: Mapping[str, str]) -> dict[str, Any]:
    """A drill as a record."""
    return {
        "received_at": from_wire_ms(one.received_at_ms),
        "machine": names.get(one.machine_id, one.machine_id),
        "state": one.state,
        "drill": one.drill_id,
        "point": one.point_id,
        "kind": one.kind,
        "started_at": from_wire_ms(one.started_at_ms),
        "took_ms": one.took_ms,
        "files": one.files,
        "bytes": one.bytes,
        "compared": one.compared,
        "wrong": one.wrong,
        "message": one.message,
        "details": one.details.decode(errors="replace"),
    }


def _size(row: Row) -> str:
    return "" if row.get("bytes") is None else render_bytes(row["bytes"])


def _took(row: Row) -> str:
    return "" if row.get("took_ms") is None else f"{row['took_ms'] / 1000:.1f} s"
