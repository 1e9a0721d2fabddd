"""`stead job`: orders on their way, and what became of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime
from typing import Any

import grpc
import rich_click as click

from controller import clock
from controller.cli.app import App
from controller.cli.operator.choice import active_among, machine_meant, tenant_named
from controller.cli.operator.connection import Connection
from controller.cli.options.terms import acting, terms_of
from controller.cli.options.usual import Moment, tenant_option
from controller.cli.orders.approving import approve, reject
from controller.cli.orders.board import render_rollout
from controller.cli.orders.following import follow, job_now
from controller.cli.orders.job_rows import (
    CELLS,
    job_row,
    print_output,
    render_progress,
    render_terms,
    shortened,
    text_of,
    whole_tasks,
)
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import (
    PRINTING,
    exit_code,
    finish,
    say_cut,
    say_failures,
    task_rows,
)
from controller.cli.orders.retrying import failed_machines, order_to_repeat
from controller.cli.output.emit import (
    console,
    emit,
    emit_one,
    note,
    output_option,
    render_age,
)
from controller.cli.output.exits import DONE, IN_PART, OVER
from protocol.action import NAMES, CancelOrder
from protocol.codec import to_ms
from protocol.errors import Code, InvalidError, NotFoundError
from protocol.summary import summary_of
from protocol.v1.job_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    GetJobResponse,
    ListJobsRequest,
    ResumeJobRequest,
)

LATEST = "latest"
CANCEL = NAMES[CancelOrder]
LOOKED_AT = 100
"""How many jobs are looked at for the latest that is no cancel."""
UNDELIVERED = frozenset({"awaiting", "waiting", "queued"})


@click.group(epilog="Example: stead job ls")
def command() -> None:
    """Orders on their way."""


@command.command(epilog="Example: stead job ls --limit 10")
@tenant_option
@click.option("--machine", default="", help="Only those for this machine.")
@click.option("--state", default="", help="Only those with a task in this state, as failed.")
@click.option("--operator", default="", help="Only those that this operator signed.")
@click.option("--order", metavar="ORDER", default="", help="Only the runs of this standing order.")
@click.option(
    "--runs", is_flag=True, help="Runs of standing orders as well; with --state they always are."
)
@click.option("--since", type=Moment(), help="Only those since then: 2026-05-01, yesterday, 3d.")
@click.option("--before", metavar="JOB", default="", help="Only those older than this job.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="The newest."
)
@output_option
@click.pass_obj
def ls(
    app: App,
    tenant: str,
    machine: str,
    state: str,
    operator: str,
    order: str,
    since: datetime | None,
    before: str,
    limit: int,
    output: str,
    *,
    runs: bool,
) -> None:
    """List jobs, newest first. To see more, name the last one with --before."""
    connection = app.connection
    request = ListJobsRequest(
        tenant_id=tenant_named(connection, tenant).tenant_id if tenant else "",
        machine_id=machine_meant(connection, machine, tenant).machine_id if machine else "",
        state=state.replace(" ", "_"),
        operator=operator,
        since_ms=to_ms(since),
        before_job_id=before,
        limit=limit,
        standing_order_id=order,
        with_runs=runs or bool(state),
        counted=True,
    )
    jobs = connection.jobs.ListJobs(request).jobs
    now = clock.now()
    emit(
        [job_row(job) for job in jobs],
        output,
        columns=("submitted_at", "summary", "states", "operator", "job"),
        cells={
            "submitted_at": lambda row: render_age(row["submitted_at"], now),
            "states": render_progress,
            "summary": lambda row: shortened(row["summary"]),
        },
        empty="there is no such job"
        if state or machine or operator or order or before or since
        else "there is no job yet",
    )
    if len(jobs) == limit and output == "table":
        note(f"There may be more: stead job ls --before {jobs[-1].job_id}")


@command.command(epilog="Example: stead job show latest")
@click.argument("job")
@output_option
@click.pass_obj
def show(app: App, job: str, output: str) -> None:
    """Show a job with its tasks and what they printed.

    JOB is an id, or `latest`: what you ordered last.
    """
    found = _whole(app.connection, _meant(app, job), output)
    if output != "table":
        more = {
            "windows": list(found.job.windows),
            "catch_up": found.job.catch_up,
            "retry_of": found.job.retry_of or None,
            "standing_order": found.job.standing_order_id or None,
            "tasks": whole_tasks(found.job, found.output),
        }
        emit_one({**job_row(found.job), **more}, output)
        return
    row = job_row(found.job)
    row["states"] = render_progress(row)
    del row["rollout"]
    if found.job.HasField("rollout"):
        row["rollout"] = render_rollout(found.job.rollout, clock.now())
        row["terms"] = render_terms(found.job.rollout)
    if found.job.windows:
        row["windows"] = "; ".join(found.job.windows) + (
            ", caught up" if found.job.catch_up else ""
        )
    if found.job.retry_of:
        row["retry_of"] = found.job.retry_of
    if found.job.standing_order_id:
        row["run_of"] = found.job.standing_order_id
    emit_one(row, output)
    console().print()
    emit(
        task_rows(found.job),
        output,
        columns=("machine", "state", "exit_code", "seconds", "message"),
    )
    for task in found.job.tasks:
        print_output(task.machine_name, text_of(found.output, task.task_id))
    say_cut(found.job)


@command.command(epilog="Example: stead job watch latest")
@click.argument("job")
@output_option
@click.pass_obj
def watch(app: App, job: str, output: str) -> int:
    """Follow a job to its end, or until its rollout is halted.

    On a terminal a table shows each machine's state and last line; elsewhere what programs
    print comes as it is.
    """
    connection = app.connection
    found = job_now(connection, _meant(app, job))
    # On a terminal a board says more than the lines of many machines.
    alone = len(found.tasks) == 1 or not sys.stderr.isatty()
    live = output == "table" and found.action in PRINTING and alone
    done = follow(connection, found, live=live, lines=True)
    if not live:
        return finish(done, output)
    say_failures(done)
    say_cut(done)
    return exit_code(done)


@command.command(epilog="Example: stead job resume latest")
@click.argument("job")
@click.option("--wait/--no-wait", default=True, help="Wait for the end (default).")
@output_option
@click.pass_obj
def resume(app: App, job: str, output: str, *, wait: bool) -> int:
    """Let a halted rollout go on. What has failed by now does not count any more."""
    connection = app.connection
    request = ResumeJobRequest(job_id=_meant(app, job))
    found = connection.jobs.ResumeJob(request).job
    if not wait:
        emit([job_row(found)], output, columns=("job", "summary", "states"), cells=CELLS)
        return DONE
    return finish(follow(connection, found, live=False, lines=True), output)


@command.command(epilog="Example: stead job retry latest --timeout 2h")
@click.argument("job")
@acting
@output_option
@click.pass_obj
def retry(app: App, /, job: str, output: str, **options: Any) -> int:
    """Order the same again for the machines on which it did not succeed.

    A new order, which you sign: what the first one said is read from its signed bytes.
    Machines whose task is not over yet are left out.
    """
    connection = app.connection
    terms = terms_of(options)
    found = job_now(connection, _meant(app, job))
    if found.standing_order_id:
        raise InvalidError(
            f"{found.job_id} is a run of a standing order, which the machine makes again in the "
            "next slot by itself; to do it now, order it with `stead run` and the like"
        )
    order = order_to_repeat(connection, found.job_id, own=job == LATEST)
    terms = replace(terms, standing=order.standing)
    failed = failed_machines(found, order)
    if not failed:
        note("There is nothing to retry: no task is over that did not succeed.")
        return DONE
    note(f"Again on {len(failed)} of {len(found.tasks)} machines: {summary_of(order.action)}")
    live = output == "table" and found.action in PRINTING
    done = order_and_follow(
        connection,
        active_among(connection, failed),
        order.action,
        terms,
        output=output,
        live=live,
        repeatable=order.repeatable,
        retry_of=order.id,
    )
    if done is None or not live:
        return finish(done, output)
    say_failures(done)
    return exit_code(done)


@command.command(epilog="Example: stead job cancel latest")
@click.argument("job")
@click.option("--queued-only", is_flag=True, help="Let what a machine has got already go on.")
@acting
@output_option
@click.pass_obj
def cancel(app: App, /, job: str, output: str, *, queued_only: bool, **options: Any) -> int:
    """Cancel what no machine has got yet, and end what runs.

    What runs is ended by an order of its own, which you sign and the machine verifies.
    Packages that are being installed are not cut short.
    """
    connection = app.connection
    terms = terms_of(options)
    order = _meant(app, job)
    done = job_now(connection, order)
    spared = OVER
    if terms.dry_run:
        spared = OVER | UNDELIVERED
        waiting = sum(task.state in UNDELIVERED for task in done.tasks)
        note(f"would cancel {waiting} of {len(done.tasks)} tasks, which no machine has got yet")
    elif any(task.state not in OVER for task in done.tasks):
        done = connection.jobs.CancelJob(CancelJobRequest(job_id=order)).job
    else:
        note("Every task was over before: there was nothing left to cancel.")
    left = {task.machine_id for task in done.tasks if task.state not in spared}
    code = DONE
    if left and queued_only:
        note(f"{len(left)} of {len(done.tasks)} tasks were delivered before and go on.")
    elif left:
        machines = active_among(connection, left)
        action = CancelOrder(order)
        ending = order_and_follow(
            connection, machines, action, terms, output=output, repeatable=True
        )
        if ending is None:
            return DONE
        say_failures(ending)
        code = exit_code(ending)
        if code == DONE and len(machines) < len(left):
            code = IN_PART
        done = job_now(connection, order)
    if done.standing:
        note(
            "Machines that have taken this standing order in go on with it: `stead order revoke "
            f"{done.job_id}` ends that."
        )
    emit(task_rows(done), output, columns=("machine", "state", "message"))
    return code


command.add_command(approve)
command.add_command(reject)


def _whole(connection: Connection, job: str, output: str) -> GetJobResponse:
    """A job with all that its tasks gave back; for people without it where that is too much."""
    try:
        return connection.jobs.GetJob(GetJobRequest(job_id=job, with_output=True))
    except grpc.RpcError as error:
        explained = connection.explain(error)
        if explained.code is not Code.LIMIT or output != "table":
            raise
        note(str(explained))
        return GetJobResponse(job=job_now(connection, job))


def _meant(app: App, job: str) -> str:
    if job != LATEST:
        return job
    # Never somebody else's: whoever cancels the latest job means an order of their own. Nor
    # the order that cancelled it.
    mine = app.connection.operator.name
    own = ListJobsRequest(operator=mine, brief=True, limit=LOOKED_AT)
    for found in app.connection.jobs.ListJobs(own).jobs:
        if found.action != CANCEL:
            return found.job_id
    raise NotFoundError("you have ordered nothing yet; `stead job ls` lists the orders of others")
