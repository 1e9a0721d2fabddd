"""`stead inventory`: what is in the machines, now and earlier, and what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import grpc
import msgspec
import rich_click as click
from rich.text import Text

from controller import clock
from controller.cli.app import App
from controller.cli.machines.sections import Fields, parts_of
from controller.cli.operator.choice import machine_meant
from controller.cli.operator.connection import Connection
from controller.cli.options.usual import Moment, tenant_option
from controller.cli.output.emit import (
    console,
    emit,
    emit_one,
    from_wire_ms,
    note,
    output_option,
    printable,
    render_age,
)
from controller.fleet.difference import Change, difference
from protocol.codec import to_ms
from protocol.errors import UNREADABLE, Code, InvalidError, NotFoundError
from protocol.v1.operator_pb2 import GetInventoryRequest, ListInventoriesRequest, Machine


@click.group(epilog="Example: stead inventory show web-01 packages")
def command() -> None:
    """What is in the machines, and what changed."""


@command.command(epilog="Example: stead inventory show web-01 packages --at yesterday")
@click.argument("machine")
@click.argument("section", default="")
@click.option("--at", type=Moment(), help="As it was then: 2026-05-01, yesterday, 3d.")
@tenant_option
@output_option
@click.pass_obj
def show(
    app: App, machine: str, section: str, at: datetime | None, tenant: str, output: str
) -> None:
    """Show a machine's inventory, whole or one section of it."""
    found = machine_meant(app.connection, machine, tenant)
    collected, bodies = read_inventory(app.connection, found, at=at)
    if section and section not in bodies:
        raise NotFoundError(
            f"{found.name} has no section {section!r}; there are: {', '.join(sorted(bodies))}"
        )
    shown = {section: bodies[section]} if section else bodies
    if output != "table":
        record = {"machine": found.name, "collected_at": collected, "sections": shown}
        emit_one(record, output)
        return
    for name, body in shown.items():
        print_section(name, body)
    note(f"{found.name}, collected {render_age(collected, clock.now())}")


@command.command(epilog="Example: stead inventory diff web-01 --since monday")
@click.argument("machine")
@click.argument("other", default="")
@click.option("--since", type=Moment(), help="What it was then; else before its last change.")
@click.option("--section", "sections", multiple=True, help="Only this section; may be repeated.")
@tenant_option
@output_option
@click.pass_obj
def diff(
    app: App,
    machine: str,
    other: str,
    since: datetime | None,
    sections: tuple[str, ...],
    tenant: str,
    output: str,
) -> None:
    """Tell what changed on MACHINE, or how OTHER differs from it."""
    if other and since is not None:
        raise InvalidError("--since is for one machine: leave out the second, or --since")
    connection = app.connection
    first = machine_meant(connection, machine, tenant)
    if other:
        second = machine_meant(connection, other, tenant)
        _, before = read_inventory(connection, first, sections=sections)
        _, after = read_inventory(connection, second, sections=sections)
        said = f"from {first.name} to {second.name}"
    else:
        at, before = _earlier(connection, first, since, sections)
        _, after = read_inventory(connection, first, sections=sections)
        said = (
            f"on {first.name} since {at.astimezone():%Y-%m-%d %H:%M}" if at else "between the two"
        )
    changes = difference(before, after)
    emit(
        [change_row(change) for change in changes],
        output,
        columns=("section", "kind", "what", "before", "after"),
        cells={
            "before": lambda row: render_fields(row["before"]),
            "after": lambda row: render_fields(row["after"]),
        },
        empty=f"nothing differs {said}",
    )
    if changes:
        note(f"{len(changes)} difference{'s' if len(changes) > 1 else ''} {said}")


@command.command(epilog="Example: stead inventory history web-01")
@click.argument("machine")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The newest."
)
@tenant_option
@output_option
@click.pass_obj
def history(app: App, machine: str, limit: int, tenant: str, output: str) -> None:
    """List when a machine's inventory changed, newest first."""
    found = machine_meant(app.connection, machine, tenant)
    request = ListInventoriesRequest(machine_id=found.machine_id, limit=limit)
    entries = app.connection.machines.ListInventories(request).entries
    rows = [
        {
            "collected_at": from_wire_ms(entry.collected_at_ms),
            "changed": list(entry.changed),
            "root": entry.root,
        }
        for entry in entries
    ]
    emit(rows, output, columns=("collected_at", "changed", "root"), empty=_never(found))


def read_inventory(
    connection: Connection,
    machine: Machine,
    *,
    at: datetime | None = None,
    sections: Sequence[str] = (),
) -> tuple[datetime | None, dict[str, Any]]:
    """When an inventory was collected, and its sections decoded, by name.

    NOT_FOUND when there is none of that time.
    """
    request = GetInventoryRequest(machine_id=machine.machine_id, at_ms=to_ms(at), sections=sections)
    try:
        found = connection.machines.GetInventory(request)
    except grpc.RpcError as error:
        if connection.explain(error).code is Code.NOT_FOUND:
            raise _none(machine, at) from error
        raise
    return from_wire_ms(found.collected_at_ms), {
        section.name: decode_body(section.name, section.body) for section in found.sections
    }


def _earlier(
    connection: Connection, machine: Machine, since: datetime | None, sections: Sequence[str]
) -> tuple[datetime | None, dict[str, Any]]:
    """The inventory of that time, or the oldest there is; without a time the one before."""
    if since is not None:
        try:
            return read_inventory(connection, machine, at=since, sections=sections)
        except NotFoundError:
            note(f"{machine.name} has no inventory of that time; the oldest one is taken")
    request = ListInventoriesRequest(machine_id=machine.machine_id, limit=2)
    if since is not None:
        request.limit, request.oldest = 1, True
    entries = connection.machines.ListInventories(request).entries
    if not entries:
        raise _none(machine)
    at = from_wire_ms(entries[-1].collected_at_ms)
    return read_inventory(connection, machine, at=at, sections=sections)


def decode_body(name: str, body: bytes) -> dict[str, Any]:
    """A section's body; INVALID when it is none."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except UNREADABLE as error:
        raise InvalidError(f"the section {name} cannot be read: {error}") from error


def print_section(name: str, body: Mapping[str, Any]) -> None:
    """Print a section for people."""
    target = console()
    target.print(Text(printable(name), style="bold underline"))
    if body.get("status") != "ok":
        why = printable(str(body.get("reason")))
        target.print(Text(f"not available: {why}", style="yellow"))
        return
    for part in parts_of(name, body.get("facts") or {}):
        if isinstance(part, Fields):
            emit_one(part.values, "table")
        else:
            emit(part.rows, "table", columns=part.columns, title=part.title)
    target.print()


def change_row(change: Change) -> dict[str, Any]:
    """A change as a record."""
    return {
        "section": change.section,
        "kind": change.kind.value,
        "what": change.what,
        "before": dict(change.before),
        "after": dict(change.after),
    }


def render_fields(values: Mapping[str, Any]) -> str:
    """Fields on one line, the long ones cut; a single field without its name.

    >>> render_fields({"version": "1.2"}), render_fields({"a": 1, "b": None})
    ('1.2', 'a=1')
    """
    said = {name: value for name, value in values.items() if value not in (None, "", [], {})}
    if len(values) == 1:
        return _short(next(iter(values.values())))
    return _short(", ".join(f"{name}={_short(value)}" for name, value in said.items()))


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _never(machine: Machine) -> str:
    return f"{machine.name} has no inventory yet; `stead snapshot take {machine.name}` collects one"


def _none(machine: Machine, at: datetime | None = None) -> NotFoundError:
    if at is None:
        return NotFoundError(_never(machine))
    return NotFoundError(
        f"{machine.name} has no inventory of that time; `stead inventory history {machine.name}` "
        "lists when there is one"
    )
