"""`stead snapshot`: the help desk's picture of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.commands.inventory import read_inventory
from controller.cli.commands.machine import machine_row
from controller.cli.machines.picture import Happening, Picture, render_picture
from controller.cli.operator.choice import machine_meant, machines_meant, tenant_names
from controller.cli.operator.connection import Connection
from controller.cli.options.repeating import repeating
from controller.cli.options.terms import acting, terms_of
from controller.cli.options.usual import tenant_option
from controller.cli.orders.job_rows import job_row
from controller.cli.orders.ordering import order_and_follow, task_of
from controller.cli.orders.outcomes import exit_code, result_of, say_halted, task_rows
from controller.cli.orders.standing import order_standing
from controller.cli.output.emit import console, emit, emit_one, from_wire_ms, note, output_option
from controller.cli.output.exits import DONE
from protocol.action import TakeSnapshot, name_of
from protocol.errors import NotFoundError
from protocol.v1.job_pb2 import Job, ListJobsRequest, Task
from protocol.v1.operator_pb2 import ListInventoriesRequest, Machine

SEARCHED_JOBS = 200
SHOWN = 5


@click.group(epilog="Example: stead snapshot take all")
def command() -> None:
    """The help desk's picture of a machine."""


@command.command(epilog="Example: stead snapshot take web-01")
@click.argument("selector")
@acting
@repeating
@output_option
@click.pass_obj
def take(app: App, /, selector: str, output: str, **options: Any) -> int:
    """Have machines collect their inventory and live figures now."""
    terms = terms_of(options)
    connection = app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    if terms.standing is not None:
        return order_standing(
            connection, machines, TakeSnapshot(), terms, output=output, repeatable=True
        )
    job = order_and_follow(
        connection, machines, TakeSnapshot(), terms, output=output, repeatable=True
    )
    if job is None:
        return DONE
    rows = [
        {**row, **_taken(result_of(task))}
        for row, task in zip(task_rows(job), job.tasks, strict=True)
    ]
    emit(rows, output, columns=("machine", "state", "seconds", "changed", "message"))
    for row in rows:
        for line in untold(row["message"], row["unavailable"]):
            note(f"{row['machine']}: {line}")
    say_halted(job)
    return exit_code(job)


@command.command(epilog="Example: stead snapshot show web-01")
@click.argument("machine")
@tenant_option
@output_option
@click.pass_obj
def show(app: App, machine: str, tenant: str, output: str) -> None:
    """Show a machine on one screen: who, how busy, what failed, what changed lately."""
    picture = look(app.connection, machine_meant(app.connection, machine, tenant))
    if output != "table":
        emit_one(picture_row(picture), output)
        return
    target = console()
    width = min(target.width, 120)
    for line in render_picture(picture, now=clock.now(), width=width):
        target.print(line, no_wrap=True)


def look(connection: Connection, machine: Machine) -> Picture:
    """Gather what is known of a machine; it is not asked anything."""
    names = tenant_names(connection)
    try:
        collected_at, bodies = read_inventory(connection, machine)
    except NotFoundError:
        collected_at, bodies = None, {}
    request = ListJobsRequest(
        tenant_id=machine.tenant_id,
        machine_id=machine.machine_id,
        with_runs=True,
        brief=True,
        limit=SEARCHED_JOBS,
    )
    jobs = connection.jobs.ListJobs(request).jobs
    newest = newest_snapshot(connection, jobs, machine.machine_id)
    history = connection.machines.ListInventories(
        ListInventoriesRequest(machine_id=machine.machine_id, limit=SHOWN)
    ).entries
    return Picture(
        machine=machine_row(machine, names),
        facts={name: body["facts"] for name, body in bodies.items() if body.get("facts")},
        collected_at=collected_at,
        live=result_of(newest).get("live") or {} if newest is not None else {},
        live_at=from_wire_ms(newest.ended_at_ms) if newest is not None else None,
        changes=[
            Happening(from_wire_ms(entry.collected_at_ms), ", ".join(entry.changed))
            for entry in history
            if entry.changed
        ],
        jobs=[
            Happening(row["submitted_at"], row["summary"], task.state)
            for job, task in _tasks_of(newest_runs(jobs), machine.machine_id)[:SHOWN]
            for row in [job_row(job)]
        ],
    )


def newest_snapshot(connection: Connection, jobs: Sequence[Job], machine: str) -> Task | None:
    """The newest task of the machine that took a snapshot and has its figures."""
    wanted = name_of(TakeSnapshot())
    for job, task in _tasks_of(jobs, machine):
        if job.action == wanted and task.state in {"succeeded", "partial"}:
            whole = task_of(connection, job.job_id, machine)
            if whole is not None and whole.result:
                return whole
    return None


def picture_row(picture: Picture) -> dict[str, Any]:
    """A picture as a record."""
    return {
        "machine": picture.machine,
        "collected_at": picture.collected_at,
        "live_at": picture.live_at,
        "live": picture.live,
        "sections": picture.facts,
        "changes": [{"at": c.at, "sections": c.what} for c in picture.changes],
        "jobs": [{"at": j.at, "summary": j.what, "state": j.state} for j in picture.jobs],
    }


def untold(message: str, unavailable: Mapping[str, str]) -> list[str]:
    """What the message does not say already of sections that are not there.

    >>> untold("dmi: no such file", {"dmi": "no such file", "disks": "no lsblk"})
    ['disks could not be had: no lsblk']
    """
    return [
        f"{section} could not be had: {reason}"
        for section, reason in unavailable.items()
        if f"{section}: {reason}" not in message
    ]


def _taken(result: dict[str, Any]) -> dict[str, Any]:
    inventory = result.get("inventory") or {}
    return {
        "changed": inventory.get("changed") or [],
        "unavailable": inventory.get("unavailable") or {},
        "live": result.get("live"),
    }


def newest_runs(jobs: Sequence[Job]) -> list[Job]:
    """Jobs, newest first, without the runs of a standing order but for its newest.

    What runs every hour would leave no room for anything else.
    """
    found, seen = [], set()
    for job in jobs:
        if job.standing_order_id not in seen:
            found.append(job)
        if job.standing_order_id:
            seen.add(job.standing_order_id)
    return found


def _tasks_of(jobs: Sequence[Job], machine: str) -> list[tuple[Job, Task]]:
    return [(job, task) for job in jobs for task in job.tasks if task.machine_id == machine]
