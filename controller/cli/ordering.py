"""Sign an order, hand it in, and follow it to its end: what every acting command does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
import rich_click as click

from controller import clock
from controller.cli.choice import ids_of
from controller.cli.connection import Connection
from controller.cli.emit import emit, note, printable
from controller.cli.exits import DONE, FAILED, IN_PART, NOT_IN_TIME, OVER, REFUSED
from controller.cli.following import follow
from controller.cli.repeating import render_standing, standing_of
from controller.cli.revoking import newest_list, read_of
from controller.cli.ruling import check_ordering, say_approval, say_awaiting
from controller.cli.spans import Span
from controller.cli.spreading import ROLLOUT_OPTIONS, WINDOW_OPTIONS, batches_of, rollout_of
from controller.cli.waiting import SHOWN
from protocol.action import Action, summary_of
from protocol.codec import encode_envelope, encode_order
from protocol.errors import Code, InvalidError
from protocol.ids import OrderId
from protocol.order import Order, enveloped, signed_bytes
from protocol.rollout import Rollout, render_batches
from protocol.standing import Standing
from protocol.v1.job_pb2 import (
    Job,
    SubmitOrderRequest,
    Task,
    WatchJobRequest,
)
from protocol.v1.link_pb2 import TaskOutput
from protocol.v1.operator_pb2 import Machine
from protocol.window import render_window

F = TypeVar("F", bound=Callable[..., Any])
PROGRAMS = frozenset({"run_program", "run_script"})
"""Actions whose exit code is a program's."""

PRINTING = PROGRAMS | {"read_log"}
"""Actions whose output is for people, as it comes."""


WITHIN = timedelta(hours=24)
WITHIN_WINDOWS = timedelta(days=8)
"""So that every day of the week comes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How an order is to be carried out; the options that acting commands share."""

    wait: bool
    deliver_by: timedelta
    timeout: timedelta
    reason: str
    yes: bool
    dry_run: bool
    tenant: str
    rollout: Rollout | None = None
    windows: tuple[str, ...] = ()
    catch_up: bool = False
    standing: Standing | None = None
    propose: bool = False
    wait_for_approval: bool = False


def acting_within(timeout: str) -> Callable[[F], F]:
    """Add the options that every command that acts on machines takes; see `acting`."""
    options = [
        click.option("--tenant", metavar="NAME", default="", help="Only machines of this tenant."),
        click.option(
            "--wait/--no-wait",
            default=None,
            help="Wait for the end (default); --wait waits for another operator's approval, too.",
        ),
        click.option(
            "--deliver-by",
            type=Span(),
            help="Do not start it later than this.  [default: 24h, with --window 8d]",
        ),
        click.option(
            "--timeout",
            type=Span(),
            default=timeout,
            show_default=True,
            help="End the execution after this time.",
        ),
        *ROLLOUT_OPTIONS,
        *WINDOW_OPTIONS,
        click.option("--reason", default="", help="Why; kept in the audit log."),
        click.option(
            "--yes", "-y", is_flag=True, help="Do not ask before acting on several machines."
        ),
        click.option(
            "--propose",
            is_flag=True,
            help="Hand in what your role may not order, for somebody else to approve.",
        ),
        click.option("--dry-run", is_flag=True, help="Show what would be ordered; order nothing."),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def acting(command: F) -> F:
    """Add the options that every command that acts on machines takes."""
    return acting_within("1h")(command)


def terms_of(options: Mapping[str, Any]) -> Terms:
    """The terms among a command's options."""
    plain = {name: options[name] for name in ("timeout", "reason", "yes", "dry_run", "propose")}
    windows = tuple(map(render_window, options["windows"]))
    if options["catch_up"] and not windows:
        raise InvalidError("--catch-up is for windows that were missed: add --window")
    now = clock.now()
    standing = standing_of(options, now)
    within = WITHIN_WINDOWS if windows else WITHIN
    if standing is not None:
        # A machine that comes back later is still to have it.
        within = standing.ends_at - now
    return Terms(
        **plain,
        wait=options["wait"] is not False,
        wait_for_approval=options["wait"] is True,
        tenant=options["tenant"],
        standing=standing,
        deliver_by=options["deliver_by"] or within,
        rollout=rollout_of(options),
        windows=windows,
        catch_up=options["catch_up"],
    )


def order_and_follow(
    connection: Connection,
    machines: Sequence[Machine],
    action: Action,
    terms: Terms,
    *,
    output: str,
    live: bool = False,
    repeatable: bool = False,
    retry_of: OrderId | None = None,
    only_linked: bool = False,
) -> Job | None:
    """Order `action` and, unless told not to, follow it to its end.

    `live` prints what the tasks print, as it comes. `only_linked` waits for no machine that
    is away, and says which are. None when nothing was ordered, or when nobody waits; exits 2
    when the person says no. Raises as `submit` does, DENIED also for a dry run.
    """
    ruled = check_ordering(connection, ids_of(machines)[0], action, propose=terms.propose)
    if terms.dry_run:
        say_approval(ruled, action, len(machines), connection)
        note(f"would order: {summary_of(action)}{render_terms(terms)}")
        rows = [{"machine": m.name, "id": m.machine_id, "linked": m.linked} for m in machines]
        if terms.rollout is not None:
            batches = batches_of(terms.rollout, len(rows))
            rows = [{**row, "batch": batch} for row, batch in zip(rows, batches, strict=True)]
        columns = ("machine", "linked", "batch") if terms.rollout else ("machine", "linked")
        emit(rows, output, columns=columns)
        return None
    confirm(machines, summary_of(action), terms)
    job = submit(connection, machines, action, terms, repeatable=repeatable, retry_of=retry_of)
    if not terms.wait:
        emit([{"job": job.job_id, "machines": len(job.tasks)}], output, columns=("job", "machines"))
        return None
    if not only_linked:
        return follow(connection, job, live=live)
    if away := [machine.name for machine in machines if not machine.linked]:
        more = f" and {len(away) - SHOWN} more" if len(away) > SHOWN else ""
        note(f"not linked, and get it when they are back: {', '.join(away[:SHOWN])}{more}")
    return follow(connection, job, live=live, only={m.machine_id for m in machines if m.linked})


def heard(job: Job) -> int:
    """The exit code by those tasks alone that are over; 0 when none is."""
    over = Job(action=job.action, tasks=[task for task in job.tasks if task.state in OVER])
    return exit_code(over) if over.tasks else DONE


def submit(
    connection: Connection,
    machines: Sequence[Machine],
    action: Action,
    terms: Terms,
    *,
    repeatable: bool = False,
    retry_of: OrderId | None = None,
) -> Job:
    """Sign an order and hand it in; it is durable when this returns.

    Raises DENIED for what machines would not obey this operator in, NEEDS_APPROVAL when
    another one has to sign it first and nobody waits for that.
    """
    job = _handed_in(connection, machines, action, terms, repeatable, retry_of)
    say_awaiting([job], waits=terms.wait and terms.wait_for_approval)
    return job


def submit_all(
    connection: Connection,
    parts: Sequence[tuple[Sequence[Machine], Action]],
    terms: Terms,
    *,
    repeatable: bool = False,
) -> list[Job]:
    """Hand in several orders, all of them before it is said which await a signature.

    Raises as `submit` does.
    """
    jobs = [
        _handed_in(connection, machines, action, terms, repeatable) for machines, action in parts
    ]
    say_awaiting(jobs, waits=terms.wait and terms.wait_for_approval)
    return jobs


def _handed_in(
    connection: Connection,
    machines: Sequence[Machine],
    action: Action,
    terms: Terms,
    repeatable: bool,
    retry_of: OrderId | None = None,
) -> Job:
    now = clock.now()
    tenant, ids = ids_of(machines)
    ruled = check_ordering(connection, tenant, action, propose=terms.propose)
    revoked = newest_list(connection)
    order = Order(
        id=OrderId(clock.new_id("or")),
        tenant=tenant,
        machines=ids,
        action=action,
        issued_at=_whole_ms(now),
        not_before=_whole_ms(now),
        deliver_by=_whole_ms(now + terms.deliver_by),
        timeout=terms.timeout,
        reason=terms.reason,
        repeatable=repeatable,
        rollout=terms.rollout,
        windows=terms.windows,
        catch_up=terms.catch_up,
        retry_of=retry_of,
        policy_version=ruled.policy.version,
        revocations_version=read_of(revoked, connection.root).version,
        standing=terms.standing,
    )
    data = encode_order(order)
    signature = connection.sign(signed_bytes(data))
    signed = enveloped(data, signature, connection.certificate)
    envelope = replace(signed, revocations=revoked, policy=ruled.data)
    request = SubmitOrderRequest(envelope=encode_envelope(envelope), propose=terms.propose)
    return connection.jobs.SubmitOrder(request).job


def task_of(connection: Connection, job: str, task: str) -> Task | None:
    """A task with its result, which listings leave out."""
    events = connection.jobs.WatchJob(WatchJobRequest(job_id=job))
    try:
        return next((e.task for e in events if e.HasField("task") and e.task.task_id == task), None)
    finally:
        events.cancel()


def output_of(connection: Connection, job: str) -> list[TaskOutput]:
    """What the tasks of a job that is over printed, however much that is."""
    events = connection.jobs.WatchJob(WatchJobRequest(job_id=job))
    return [event.output for event in events if event.HasField("output")]


def exit_code(job: Job) -> int:
    """The exit code of cli.md that a finished job comes to."""
    states = [task.state for task in job.tasks]
    good = states.count("succeeded")
    if good == len(states):
        return DONE
    if good or "partial" in states:
        return IN_PART
    if all(state == "expired" for state in states):
        return NOT_IN_TIME
    if all(state == "rejected" for state in states):
        return REFUSED
    return FAILED


def task_rows(job: Job) -> list[dict[str, Any]]:
    """A job's tasks as records."""
    return [
        {
            "machine": task.machine_name,
            "state": task.state,
            "exit_code": task.exit_code
            if job.action in PROGRAMS and task.state in {"succeeded", "failed"}
            else None,
            "seconds": round((task.ended_at_ms - task.started_at_ms) / 1000, 2)
            if task.started_at_ms and task.ended_at_ms
            else None,
            "code": task.code,
            "message": task.message,
            "task": task.task_id,
            "job": job.job_id,
        }
        for task in job.tasks
    ]


def result_of(task: Task) -> dict[str, Any]:
    """An action's result; empty when it has none."""
    if not task.result:
        return {}
    try:
        found = msgspec.json.decode(task.result)
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidError(f"the result of {task.machine_name} is not a JSON object")
    return found


def say_failures(job: Job) -> None:
    """Tell the person about every task that did not succeed."""
    for task in job.tasks:
        if task.state in OVER - {"succeeded"}:
            why = task.message or task.code or "no reason given"
            if task.code == Code.UNKNOWN_FIELD:
                # What it said of "this side" is said on that side.
                why += " (its agent is older than what the order says: upgrade the agent)"
            note(f"{task.machine_name}: {task.state}: {why}")


def say_remarks(job: Job) -> None:
    """Tell the person what tasks that succeeded have to say."""
    for task in job.tasks:
        if task.state == "succeeded" and task.message:
            note(f"{task.machine_name}: {task.message}")


def say_cut(job: Job) -> None:
    """Tell the person whose output is not whole."""
    for task in job.tasks:
        if task.output_truncated:
            note(f"{task.machine_name}: it printed more than is kept; the rest was cut off")


def finish(job: Job | None, output: str) -> int:
    """Say how a job ended, as a listing of its tasks; the exit code."""
    if job is None:
        return DONE
    emit(
        task_rows(job),
        output,
        columns=("machine", "state", "seconds", "message"),
    )
    return exit_code(job)


def render_terms(terms: Terms) -> str:
    """How often an order is carried out and in which hours, for people."""
    return render_standing(terms.standing) + render_windows(terms)


def render_windows(terms: Terms) -> str:
    """The windows of an order, for people; empty when it has none."""
    if not terms.windows:
        return ""
    missed = ", or at once when none opens in time" if terms.catch_up else ""
    return f", within {'; '.join(terms.windows)} of each machine's own time{missed}"


def confirm(machines: Sequence[Machine], doing: str, terms: Terms) -> None:
    """Ask before acting on several machines; INVALID when there is nobody to ask."""
    if len(machines) < 2 or terms.yes:
        return
    names = ", ".join(machine.name for machine in machines[:10])
    more = f" and {len(machines) - 10} more" if len(machines) > 10 else ""
    how = "" if terms.rollout is None else f", in batches {render_batches(terms.rollout.batches)}"
    how += render_terms(terms)
    question = f"{doing} on {len(machines)} machines: {names}{more}{how}?"
    if not sys.stdin.isatty():
        raise InvalidError(f"{question} Nobody is there to ask: add --yes")
    click.confirm(printable(question), abort=True, err=True)


def _whole_ms(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
