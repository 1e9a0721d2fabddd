"""`stead logs`: a machine's logs, as they are and as they grow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.commands.run import order_live
from controller.cli.operator.choice import machine_meant
from controller.cli.options.terms import Terms, acting_within, terms_of
from controller.cli.options.usual import Moment
from controller.cli.orders.following import follow as follow_job
from controller.cli.orders.ordering import submit
from controller.cli.orders.outcomes import exit_code, say_cut, say_failures, say_remarks
from controller.cli.output.emit import note, output_option
from controller.cli.output.exits import DONE
from protocol.action import CancelOrder, ReadLog
from protocol.codec import to_ms
from protocol.errors import InvalidError
from protocol.v1.operator_pb2 import Machine

LINES = 1000


@click.command(epilog="Example: stead logs web-01 --unit nginx --since 2h")
@click.argument("machine")
@click.option("--unit", metavar="NAME", default="", help="Only this unit of systemd's journal.")
@click.option(
    "--file", "path", metavar="PATH", default="", help="A file, with what rotation made of it."
)
@click.option("--since", type=Moment(), help="Not what is older: 2h, monday, '2026-05-01 12:00'.")
@click.option("--until", type=Moment(), help="Not what is newer.")
@click.option(
    "--lines",
    type=click.IntRange(0, 1_000_000),
    default=LINES,
    show_default=True,
    help="The last of what fits; 0 for all.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@acting_within("1h")
@output_option
@click.pass_obj
def command(
    app: App,
    /,
    machine: str,
    unit: str,
    path: str,
    since: datetime | None,
    until: datetime | None,
    lines: int,
    follow: bool,
    output: str,
    **options: Any,
) -> int:
    """Show the log of MACHINE: systemd's journal, or a file. At most 8 MiB are shown.

    On a terminal nothing of it steers the terminal. It may hold secrets: who may only look
    does not see it.
    """
    if path and unit:
        raise InvalidError("name a unit or a file, not both")
    if since is not None and until is not None and until < since:
        raise InvalidError("--until is before --since")
    if follow and output != "table":
        raise InvalidError("--follow shows what comes as it comes: leave --output out")
    terms, connection = terms_of(options), app.connection
    found = machine_meant(connection, machine, terms.tenant)
    action = ReadLog(
        unit=unit,
        file=path,
        since_ms=to_ms(since),
        until_ms=to_ms(until),
        lines=lines,
        follow=follow,
    )
    if follow and not terms.dry_run:
        return _followed(app, found, action, terms)
    return order_live(app, [found], action, terms, output)


def _followed(app: App, machine: Machine, action: ReadLog, terms: Terms) -> int:
    connection = app.connection
    job = submit(connection, [machine], action, terms)
    try:
        job = follow_job(connection, job, live=True, goes_on=False)
    except KeyboardInterrupt:
        # Nobody looks any more: the machine need not go on reading.
        submit(connection, [machine], CancelOrder(job.job_id), terms, repeatable=True)
        note("ended on the machine as well")
        return DONE
    say_failures(job)
    say_remarks(job)
    say_cut(job)
    return exit_code(job)
