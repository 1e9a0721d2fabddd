"""`stead patch`: what updates are on offer, what they would do, and doing exactly that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import msgspec
import rich_click as click

from controller.cli.app import App
from controller.cli.commands.inventory import decode_body
from controller.cli.machines.plans import (
    Proposal,
    Who,
    alike,
    package_cells,
    parse_proposal,
    remarks_of,
    render_extent,
    result_rows,
    scan_fields,
    step_rows,
    update_rows,
)
from controller.cli.operator.choice import machine_meant, machines_meant
from controller.cli.operator.connection import Connection
from controller.cli.options.repeating import repeating
from controller.cli.options.terms import Terms, acting, acting_within, terms_of
from controller.cli.options.usual import tenant_option
from controller.cli.orders.following import follow
from controller.cli.orders.ordering import confirm, order_and_follow, submit, submit_all
from controller.cli.orders.outcomes import exit_code, result_of, say_failures, task_rows
from controller.cli.orders.standing import order_standing
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, note, output_option
from controller.cli.output.exits import DONE, FAILED, IN_PART
from protocol.abreast import abreast
from protocol.action import ApplyUpdates, PlanUpdates, ScanUpdates
from protocol.errors import Code, InvalidError
from protocol.v1.job_pb2 import Job
from protocol.v1.operator_pb2 import GetInventoryRequest, Machine

SECTION = "updates"
SCAN_COLUMNS = ("machine", "state", "updates", "security", "held", "refreshed_at")
CUT_SHORT = frozenset({"timed_out", "indeterminate", "cancelled"})
"""How an order ends that leaves a machine wherever it was by then."""
AT_ONCE = 8
"""Machines whose lists of updates are asked for beside one another."""
STEP_COLUMNS = ("package", "change", "old", "new", "reason")


@click.group(epilog="Example: stead patch scan all")
def command() -> None:
    """Updates: scan, plan, apply."""


@command.command(epilog="Example: stead patch scan all")
@click.argument("selector")
@click.option("--refresh/--no-refresh", default=True, help="Fetch the lists first (default).")
@acting
@repeating
@output_option
@click.pass_obj
def scan(app: App, /, selector: str, refresh: bool, output: str, **options: Any) -> int:
    """Look for updates on machines."""
    terms = terms_of(options)
    connection = app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    action = ScanUpdates(refresh=refresh)
    if terms.standing is not None:
        return order_standing(connection, machines, action, terms, output=output, repeatable=True)
    job = order_and_follow(connection, machines, action, terms, output=output, repeatable=True)
    if job is None:
        return DONE
    say_failures(job)
    rows = [
        {**row, **scan_fields(found)}
        for row, found in zip(task_rows(job), map(result_of, job.tasks), strict=True)
    ]
    emit(rows, output, columns=SCAN_COLUMNS)
    return exit_code(job)


@command.command(epilog="Example: stead patch ls tag:web --security")
@click.argument("selector")
@click.option("--security", is_flag=True, help="Only security updates.")
@tenant_option
@output_option
@click.pass_obj
def ls(app: App, selector: str, security: bool, tenant: str, output: str) -> None:
    """List the updates that the last scan found, and what is held back."""
    connection = app.connection
    rows: list[dict[str, Any]] = []
    known = 0
    machines = machines_meant(connection, selector, tenant)
    scanned = abreast(lambda one: _scanned(connection, one), machines, most=AT_ONCE)
    for machine, facts in zip(machines, scanned, strict=True):
        if isinstance(facts, str):
            note(f"{machine.name} {facts}; `stead patch scan {machine.name}` looks")
        else:
            known += 1
            rows += update_rows(machine.name, facts)
    if security:
        rows = [row for row in rows if row["security"]]
    columns = ["package", "installed", "candidate", "security"]
    if any(row["held"] for row in rows):
        columns.append("held")
    what = "no security update" if security else "nothing"
    empty = f"{what} is on offer, as far as the last scan knows" if known else ""
    if rows or empty or output != "table":
        emit(
            rows,
            output,
            columns=_with_machine(columns, rows),
            empty=empty,
            cells=package_cells(rows),
        )


@command.command(epilog="Example: stead patch plan web-01 openssl")
@click.argument("machine")
@click.argument("packages", nargs=-1)
@acting
@output_option
@click.pass_obj
def plan(app: App, /, machine: str, packages: tuple[str, ...], output: str, **options: Any) -> int:
    """Work out the exact transaction, with a reason for every step. Changes nothing."""
    terms = terms_of(options)
    connection = app.connection
    found = machine_meant(connection, machine, terms.tenant)
    job = order_and_follow(
        connection, [found], PlanUpdates(packages), terms, output=output, repeatable=True
    )
    if job is None:
        return DONE
    say_failures(job)
    proposals = _proposals(job)
    _show(proposals, output)
    return exit_code(job)


@command.command(epilog="Example: stead patch apply tag:web openssl libssl3 --reason 'DSA 5678'")
@click.argument("selector")
@click.argument("packages", nargs=-1)
# Past the four hours after which the agent itself ends what hangs: an order's time ends the
# package manager half way and without a word, the agent's own with every step's state.
@acting_within("5h")
@output_option
@click.pass_obj
def apply(
    app: App, /, selector: str, packages: tuple[str, ...], output: str, **options: Any
) -> int:
    """Install updates: plan, show the plan, ask, then order exactly what was shown.

    Without PACKAGES all updates on offer. A machine whose transaction has changed in
    between refuses, and nothing happens on it.
    """
    terms = terms_of(options)
    if output != "table" and not (terms.yes or terms.dry_run):
        raise InvalidError(
            f"with --output {output} no plan is shown that could be agreed to: look at it with "
            "--dry-run, then add --yes"
        )
    connection = app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    planned = follow(
        connection,
        submit(
            connection,
            machines,
            PlanUpdates(packages),
            replace(terms, rollout=None),
            output=output,
            repeatable=True,
        ),
        live=False,
    )
    say_failures(planned)
    proposals = _proposals(planned)
    due = {m: p for m, p in proposals.items() if p.plan.steps}
    if terms.dry_run or not due:
        _show(proposals, output)
        return exit_code(planned)
    if output == "table":
        _show(due, output)
    targets = [machine for machine in machines if _who(machine) in due]
    _agree(targets, terms)
    if terms.rollout is not None and len(_orders(due)) > 1:
        raise InvalidError(
            "these machines have different plans, so they get different orders, and batches are "
            "of one order: name machines that have the same plan, or leave out --batch"
        )
    parts = [([m for m in targets if _who(m) in group], action) for action, group in _orders(due)]
    jobs = submit_all(connection, parts, terms, output=output)
    if not terms.wait:
        rows = [{"job": job.job_id, "machines": len(job.tasks)} for job in jobs]
        emit(rows, output, columns=("job", "machines"))
        return DONE
    done = [follow(connection, job, live=False) for job in jobs]
    _report(done, output)
    codes = {exit_code(job) for job in done}
    if len(due) < len(planned.tasks):
        # What was planned and came to nothing counts as well, for better or worse.
        codes.add(exit_code(planned))
    return codes.pop() if len(codes) == 1 else _mixed(codes)


def _who(machine: Machine) -> Who:
    return machine.name, machine.machine_id


def _orders(due: dict[Who, Proposal]) -> list[tuple[ApplyUpdates, set[Who]]]:
    """One order for all machines that have the very same plan."""
    return [(ApplyUpdates(plan=found.data), set(group)) for found, group in alike(due).items()]


def _proposals(job: Job) -> dict[Who, Proposal]:
    return {
        (task.machine_name, task.machine_id): parse_proposal(task.result)
        for task in job.tasks
        if task.state == "succeeded"
    }


def _show(proposals: dict[Who, Proposal], output: str) -> None:
    if output != "table":
        emit(
            [row for (name, _), found in proposals.items() for row in step_rows(name, found)],
            output,
            columns=STEP_COLUMNS,
        )
        return
    for found, group in alike(proposals).items():
        names = [name for name, _ in group]
        if not found.plan.steps:
            note(f"{', '.join(names)}: nothing to do")
            continue
        # One table for all machines that would do the same, as one order is signed for them.
        rows = step_rows(names[0], found)
        title = f"{', '.join(names)}: {render_extent(found)}"
        emit(rows, output, columns=STEP_COLUMNS, cells=package_cells(rows), title=title)


def _agree(targets: Sequence[Machine], terms: Terms) -> None:
    """Ask even for one machine: the plan was made a moment ago, and nobody has seen it yet."""
    if len(targets) > 1:
        confirm(targets, "apply the plans above", terms)
    else:
        ask(f"Apply this plan to {targets[0].name}?", yes=terms.yes)


def _report(done: Sequence[Job], output: str) -> None:
    rows: list[dict[str, Any]] = []
    lost = False
    for job in done:
        say_failures(job)
        for task in job.tasks:
            result = result_of(task)
            rows += result_rows(task.machine_name, result)
            for remark in remarks_of(result):
                note(f"{task.machine_name}: {remark}")
            if not result and task.started_at_ms and task.state in CUT_SHORT:
                lost = True
                name = task.machine_name
                note(f"{name}: how far it came is not known; `stead patch scan {name}` looks")
    if lost and not rows and output == "table":
        return
    columns = _with_machine(["package", "old", "new", "state", "reason"], rows)
    good = sum(row["state"] == "succeeded" for row in rows)
    emit(
        rows,
        output,
        columns=columns,
        cells=package_cells(rows),
        title=f"{good} of {len(rows)} {'step' if len(rows) == 1 else 'steps'} done",
        empty="no package was changed",
    )


def _with_machine(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Sequence[str]:
    """The machine's column only where there are several: every column costs the others room."""
    return ["machine", *columns] if len({row["machine"] for row in rows}) > 1 else columns


def _mixed(codes: set[int]) -> int:
    return IN_PART if DONE in codes or IN_PART in codes else FAILED


def _scanned(connection: Connection, machine: Machine) -> dict[str, Any] | str:
    """What the last scan of a machine found, or why nothing is known."""
    request = GetInventoryRequest(machine_id=machine.machine_id, sections=[SECTION])
    try:
        [section] = connection.machines.GetInventory(request).sections
    except grpc.RpcError as error:
        if connection.explain(error).code is Code.NOT_FOUND:
            return "was never scanned"
        raise
    body = decode_body(section.name, section.body)
    if body.get("status") != "ok":
        return f"could not be scanned: {body.get('reason') or 'it does not say why'}"
    return msgspec.convert(body.get("facts") or {}, dict[str, Any])
