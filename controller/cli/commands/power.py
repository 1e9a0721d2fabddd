"""`stead power`: restart machines, or switch them off."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import rich_click as click
from click.core import ParameterSource

from controller.cli.app import App
from controller.cli.operator.choice import machines_meant
from controller.cli.operator.connection import Connection
from controller.cli.options.spans import Span
from controller.cli.options.terms import Terms, acting, terms_of
from controller.cli.orders.following import job_now
from controller.cli.orders.ordering import confirm, order_and_follow
from controller.cli.orders.outcomes import finish, say_failures
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.exits import DONE, FAILED, OVER
from protocol.action import NAMES, CancelOrder, ControlPower
from protocol.errors import InvalidError
from protocol.v1.job_pb2 import CancelJobRequest, Job, ListJobsRequest
from protocol.v1.operator_pb2 import Machine

AWAY = timedelta(minutes=30)
"""So long beyond its time an end may take before the order counts as not carried out."""
OPEN = ("awaiting", "waiting", "queued", "offered", "running")
POWER = NAMES[ControlPower]
DELIVER_WITHIN = timedelta(hours=1)
"""Nobody expects a restart that was ordered yesterday."""


@click.group(epilog="Example: stead power reboot tag:web --notice 'Updates' --in 10m")
def command() -> None:
    """Restart machines, or switch them off.

    Without --deliver-by only machines that are there within an hour do it.
    """


def _ending(verb: str, about: str) -> Callable[..., int]:
    @command.command(verb, help=about, epilog=f"Example: stead power {verb} web-01 --in 10m")
    @click.argument("selector")
    @click.option("--notice", default="", metavar="TEXT", help="Shown to who is logged in.")
    @click.option(
        "--in",
        "delay",
        type=Span(),
        default="5m",
        show_default=True,
        help="People are told so long before.",
    )
    @click.option(
        "--cancel", "cancelled", is_flag=True, help="Cancel what waits for its time instead."
    )
    @acting
    @output_option
    @click.pass_context
    def end(
        context: click.Context,
        /,
        selector: str,
        notice: str,
        delay: timedelta,
        cancelled: bool,
        output: str,
        **options: Any,
    ) -> int:
        app: App = context.obj
        terms, connection = terms_of(options), app.connection
        machines = machines_meant(connection, selector, terms.tenant)
        if cancelled:
            return _cancel(connection, machines, verb, terms, output)
        if context.get_parameter_source("deliver_by") is ParameterSource.DEFAULT:
            terms = dataclasses.replace(terms, deliver_by=DELIVER_WITHIN)
        terms = dataclasses.replace(terms, timeout=max(terms.timeout, delay + AWAY))
        action = ControlPower(verb, notice, int(delay.total_seconds()))
        return finish(order_and_follow(connection, machines, action, terms, output=output), output)

    return end


_ending("reboot", "Restart machines, and wait until they are there again.")
_ending("shutdown", "Switch machines off. The order ends when they are on again.")


def _cancel(
    connection: Connection, machines: Sequence[Machine], verb: str, terms: Terms, output: str
) -> int:
    """Cancel every such job of these machines that is not over."""
    meant = {machine.machine_id for machine in machines}
    jobs = _open_jobs(connection, verb, meant)
    if not jobs:
        note(f"no {verb} waits for its time on these machines")
        return DONE
    for job in jobs:
        others = {task.machine_name for task in job.tasks} - {one.name for one in machines}
        if others:
            raise InvalidError(
                f"{job.job_id} is for other machines as well ({', '.join(sorted(others))[:200]}); "
                f"`stead job cancel {job.job_id}` cancels it whole"
            )
    if not terms.dry_run:
        confirm(machines, f"cancel {verb}", terms)
    rows, good = [], True
    for job in jobs:
        done = job if terms.dry_run else _cancelled(connection, job, machines, terms, output)
        rows += [
            {"machine": task.machine_name, "state": task.state, "job": done.job_id}
            for task in done.tasks
        ]
        good = good and all(task.state == "cancelled" for task in done.tasks)
    emit(rows, output, columns=("machine", "state", "job"))
    return DONE if good or terms.dry_run else FAILED


def _open_jobs(connection: Connection, verb: str, meant: set[str]) -> list[Job]:
    found: set[str] = set()
    # By state, so that no number of jobs that are over hides one that waits.
    for state in OPEN:
        request = ListJobsRequest(state=state, action=POWER, brief=True, limit=1000)
        listed = connection.jobs.ListJobs(request).jobs
        found |= {job.job_id for job in listed if job.summary.startswith(f"{verb} ")}
    return [
        job
        for job in (job_now(connection, one) for one in sorted(found))
        if any(task.machine_id in meant and task.state not in OVER for task in job.tasks)
    ]


def _cancelled(
    connection: Connection, job: Job, machines: Sequence[Machine], terms: Terms, output: str
) -> Job:
    done = connection.jobs.CancelJob(CancelJobRequest(job_id=job.job_id)).job
    left = {task.machine_id for task in done.tasks if task.state not in OVER}
    if not left:
        return done
    ending = order_and_follow(
        connection,
        [one for one in machines if one.machine_id in left],
        CancelOrder(job.job_id),
        dataclasses.replace(terms, yes=True, wait=True),
        output=output,
        repeatable=True,
    )
    if ending is not None:
        say_failures(ending)
    return job_now(connection, job.job_id)
