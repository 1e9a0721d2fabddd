"""`stead service`: which services there are, and starting and stopping them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machines_meant
from controller.cli.options.terms import acting, acting_within, terms_of
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code, report, result_of, say_failures, task_rows
from controller.cli.output.emit import emit, output_option, render_bytes
from controller.cli.output.exits import DONE
from protocol.action import Action, ControlService, ListServices
from protocol.v1.job_pb2 import Job

LISTED = ("machine", "name", "state", "start", "description")
SHOWN = ("machine", "name", "state", "detail", "start", "pid", "memory", "restarts", "since")
CHANGED = ("machine", "service", "was", "is", "start", "outcome", "message")


@click.group(epilog="Example: stead service ls web-01 --failed")
def command() -> None:
    """Services: list, start, stop. NAME goes with or without `.service`."""


@command.command(epilog="Example: stead service ls tag:web --failed")
@click.argument("selector")
@click.option("--failed", is_flag=True, help="Only those that failed or restart in vain.")
@click.option("--name", "part", metavar="TEXT", default="", help="Only those with this in it.")
@acting_within("2m")
@output_option
@click.pass_obj
def ls(app: App, /, selector: str, failed: bool, part: str, output: str, **options: Any) -> int:
    """List services as they are now. `stead inventory` has them as they were."""
    job = _ordered(app, selector, ListServices(), output, options, repeatable=True)
    if job is None:
        return DONE
    rows = [row for row in _rows_of(job) if part in row["name"]]
    if failed:
        rows = [row for row in rows if row["state"] in ("failed", "restarting")]
    emit(rows, output, columns=LISTED, empty="no service fits")
    return exit_code(job)


@command.command(epilog="Example: stead service status web-01 nginx")
@click.argument("selector")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@acting_within("2m")
@output_option
@click.pass_obj
def status(app: App, /, selector: str, names: tuple[str, ...], output: str, **options: Any) -> int:
    """Show services in detail."""
    job = _ordered(app, selector, ListServices(names), output, options, repeatable=True)
    if job is None:
        return DONE
    rows = [{**row, "memory": row["memory_bytes"]} for row in _rows_of(job)]
    emit(rows, output, columns=SHOWN, cells={"memory": _memory})
    return exit_code(job)


def _changing(verb: str, about: str) -> Callable[..., int]:
    @command.command(verb, help=about, epilog=f"Example: stead service {verb} tag:web nginx")
    @click.argument("selector")
    @click.argument("name")
    @acting
    @output_option
    @click.pass_obj
    def change(app: App, /, selector: str, name: str, output: str, **options: Any) -> int:
        job = _ordered(app, selector, ControlService(name, verb), output, options)
        if job is None:
            return DONE
        return report(job, changes_of(job), output, columns=CHANGED)

    return change


_changing("start", "Start a service.")
_changing("stop", "Stop a service.")
_changing("restart", "Stop a service and start it again.")
_changing("enable", "Have a service start by itself.")
_changing("disable", "Have a service not start by itself.")


def changes_of(job: Job) -> list[dict[str, Any]]:
    """What a service was on each machine, and what it is now."""
    rows = []
    for row, task in zip(task_rows(job), job.tasks, strict=True):
        found = result_of(task)
        before, after = found.get("before", {}), found.get("after", {})
        rows.append(
            {
                "machine": row["machine"],
                "service": found.get("name"),
                "was": before.get("state"),
                "is": after.get("state"),
                "start": after.get("start"),
                "outcome": row["state"],
                "message": row["message"],
                "job": row["job"],
            }
        )
    return rows


def _ordered(
    app: App,
    selector: str,
    action: Action,
    output: str,
    options: dict[str, Any],
    *,
    repeatable: bool = False,
) -> Job | None:
    terms, connection = terms_of(options), app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    job = order_and_follow(
        connection, machines, action, terms, output=output, repeatable=repeatable
    )
    if job is not None and repeatable:
        say_failures(job)
    return job


def _rows_of(job: Job) -> list[dict[str, Any]]:
    return [
        {"machine": task.machine_name, **service}
        for task in job.tasks
        for service in result_of(task).get("services", ())
    ]


def _memory(row: Any) -> str:
    return "" if row["memory_bytes"] is None else render_bytes(row["memory_bytes"])
