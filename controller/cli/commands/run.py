"""`stead run`: run a program on machines and see what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machines_meant
from controller.cli.operator.connection import Connection
from controller.cli.options.confining import confined, limits_of, surrounded
from controller.cli.options.repeating import repeating
from controller.cli.options.terms import Terms, acting, terms_of
from controller.cli.orders.ordering import order_and_follow, output_of
from controller.cli.orders.outcomes import exit_code, say_cut, say_failures, say_remarks, task_rows
from controller.cli.orders.standing import order_standing
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.exits import DONE
from protocol.action import Action, RunProgram
from protocol.codec import MAX_ORDER_BYTES
from protocol.errors import InvalidError
from protocol.v1.job_pb2 import Job
from protocol.v1.link_pb2 import OutputStream, TaskOutput
from protocol.v1.operator_pb2 import Machine

LARGEST_INPUT = MAX_ORDER_BYTES - 64 * 1024


@click.command(
    epilog="Example: stead run tag:web --reason 'ticket 4711' -- systemctl restart nginx"
)
@click.argument("selector")
@click.argument("argv", nargs=-1, required=True, metavar="-- PROGRAM [ARGUMENT]...")
@click.option("--stdin", "stdin", type=click.File("rb"), help="A file for the program to read.")
@surrounded
@confined
@acting
@repeating
@output_option
@click.pass_obj
def command(
    app: App,
    /,
    selector: str,
    argv: tuple[str, ...],
    stdin: Any,
    environment: tuple[str, ...],
    directory: str,
    output: str,
    **options: Any,
) -> int:
    """Run a program on machines, without a shell. Exits 0 when it succeeded everywhere.

    With --every it becomes a standing order: each machine runs it by itself, also while no
    controller can be reached, until it ends or is revoked (`stead order`).
    """
    action = RunProgram(
        argv=argv,
        stdin=read_input(stdin),
        environment=parse_environment(environment),
        directory=directory,
        limits=limits_of(options),
    )
    terms = terms_of(options)
    machines = machines_meant(app.connection, selector, terms.tenant)
    return order_live(app, machines, action, terms, output)


def order_live(
    app: App, machines: Sequence[Machine], action: Action, terms: Terms, output: str
) -> int:
    """Order what prints, show what it prints as it comes, and say how it ended."""
    connection = app.connection
    if terms.standing is not None:
        return order_standing(connection, machines, action, terms, output=output)
    live = output == "table"
    job = order_and_follow(connection, machines, action, terms, output=output, live=live)
    if job is None:
        return DONE
    if live:
        say_failures(job)
        say_remarks(job)
    else:
        _print_whole(connection, job, output)
    say_cut(job)
    return exit_code(job)


def parse_environment(pairs: Sequence[str]) -> dict[str, str]:
    """Variables from NAME=VALUE.

    >>> parse_environment(["LANG=C", "A=b=c"])
    {'LANG': 'C', 'A': 'b=c'}
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidError(f"{pair[:80]!r} is not NAME=VALUE")
        found[name] = value
    return found


def printed(output: Sequence[TaskOutput], task: str, stream: OutputStream.ValueType) -> str:
    """What a task printed to a stream, as text; bytes that are none are escaped."""
    pieces = [piece.data for piece in output if piece.task_id == task and piece.stream == stream]
    return b"".join(pieces).decode(errors="backslashreplace")


def _print_whole(connection: Connection, job: Job, output: str) -> None:
    found = output_of(connection, job.job_id)
    rows = [
        {
            **row,
            "stdout": printed(found, row["task"], OutputStream.OUTPUT_STREAM_STDOUT),
            "stderr": printed(found, row["task"], OutputStream.OUTPUT_STREAM_STDERR),
            "output_truncated": task.output_truncated,
        }
        for row, task in zip(task_rows(job), job.tasks, strict=True)
    ]
    emit(rows, output, columns=())


def read_input(file: Any) -> bytes:
    """The content of the file for standard input, which has to fit into an order."""
    if file is None:
        return b""
    data: bytes = file.read(LARGEST_INPUT + 1)
    if len(data) > LARGEST_INPUT:
        raise InvalidError(f"an order carries at most {LARGEST_INPUT} bytes of standard input")
    if not data:
        note("the file for standard input is empty")
    return data
