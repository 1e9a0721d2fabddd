"""`stead process`: which processes there are, and ending one."""

from __future__ import annotations

import re
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machine_meant, machines_meant
from controller.cli.options.terms import acting, acting_within, terms_of
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code, finish, result_of, say_failures
from controller.cli.output.emit import emit, note, output_option, render_bytes
from controller.cli.output.exits import DONE
from protocol.action import KillProcess, ListProcesses
from protocol.errors import InvalidError

LISTED = ("machine", "process", "user", "state", "cpu_seconds", "memory", "name")
SIGNALS = ("TERM", "KILL", "INT", "HUP", "QUIT", "STOP", "CONT", "USR1", "USR2")
_PROCESS = re.compile(r"([1-9][0-9]{0,9}):([0-9]{1,20}-[0-9a-f]{8})")


@click.group(epilog="Example: stead process ls web-01 --name php")
def command() -> None:
    """Processes: list, end."""


@command.command(epilog="Example: stead process ls web-01 --top 10")
@click.argument("selector")
@click.option("--name", metavar="TEXT", default="", help="Only those with this in their name.")
@click.option(
    "--top", type=click.IntRange(1), metavar="N", help="Only the N that took most processor time."
)
@acting_within("2m")
@output_option
@click.pass_obj
def ls(app: App, /, selector: str, name: str, top: int | None, output: str, **options: Any) -> int:
    """List processes, those that took most processor time first; arguments are not shown."""
    terms, connection = terms_of(options), app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    job = order_and_follow(
        connection, machines, ListProcesses(name), terms, output=output, repeatable=True
    )
    if job is None:
        return DONE
    say_failures(job)
    rows = []
    for task in job.tasks:
        found = result_of(task)
        if found.get("left_out"):
            note(f"{task.machine_name}: {found['left_out']} more are left out")
        for one in found.get("processes", ())[:top]:
            process = f"{one['pid']}:{one['identity']}"
            rows.append({"machine": task.machine_name, "process": process, **one})
    cells = {"memory": lambda row: render_bytes(row["memory_bytes"])}
    rows = [{**row, "memory": row["memory_bytes"]} for row in rows]
    emit(rows, output, columns=LISTED, cells=cells, empty="no process fits")
    return exit_code(job)


@command.command(epilog="Example: stead process kill web-01 4711:81230-5f1c2a9b --signal KILL")
@click.argument("machine")
@click.argument("process")
@click.option(
    "--signal",
    "number",
    type=click.Choice(SIGNALS, case_sensitive=False),
    default="TERM",
    show_default=True,
    help="What to send.",
)
@acting
@output_option
@click.pass_obj
def kill(app: App, /, machine: str, process: str, number: str, output: str, **options: Any) -> int:
    """Send a signal to a process of MACHINE, and see whether it ends.

    PROCESS is what `stead process ls` shows: its number, and what tells it from another
    process that has got the same number since.
    """
    pid, identity = parse_process(process)
    terms, connection = terms_of(options), app.connection
    found = machine_meant(connection, machine, terms.tenant)
    action = KillProcess(pid, identity, number.upper())
    job = order_and_follow(connection, [found], action, terms, output=output)
    return finish(job, output)


def parse_process(text: str) -> tuple[int, str]:
    """A process as the list shows it.

    >>> parse_process("12:345-0123abcd")
    (12, '345-0123abcd')
    """
    found = _PROCESS.fullmatch(text)
    if found is None:
        raise InvalidError(
            f"{text[:40]!r} is no process as `stead process ls` shows them, 4711:81230-5f1c2a9b; "
            "a number alone may be another process by then"
        )
    return int(found[1]), found[2]
