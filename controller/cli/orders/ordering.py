"""Sign an order, hand it in, and follow it to its end: what every acting command does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from controller import clock
from controller.cli.operator.choice import ids_of
from controller.cli.operator.connection import Connection
from controller.cli.operator.recognising import check_recognised
from controller.cli.operator.revoking import newest_list, read_of
from controller.cli.operator.ruling import check_ordering, say_approval, say_awaiting
from controller.cli.options.spreading import batches_of
from controller.cli.options.terms import Terms, render_terms
from controller.cli.orders.following import follow
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, note, render_names
from protocol.action import Action
from protocol.codec import encode_envelope, encode_order
from protocol.ids import OrderId
from protocol.order import Order, enveloped, signed_bytes
from protocol.rollout import render_batches
from protocol.summary import summary_of
from protocol.v1.job_pb2 import (
    GetJobRequest,
    Job,
    SubmitOrderRequest,
    Task,
    WatchJobRequest,
)
from protocol.v1.link_pb2 import TaskOutput
from protocol.v1.operator_pb2 import Machine


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
    check_recognised(connection.home, machines, dry_run=terms.dry_run)
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
    job = submit(
        connection,
        machines,
        action,
        terms,
        output=output,
        repeatable=repeatable,
        retry_of=retry_of,
    )
    if not terms.wait:
        emit([{"job": job.job_id, "machines": len(job.tasks)}], output, columns=("job", "machines"))
        return None
    if not only_linked:
        return follow(connection, job, live=live)
    if away := [machine.name for machine in machines if not machine.linked]:
        note(f"not linked, and get it when they are back: {render_names(away)}")
    return follow(connection, job, live=live, only={m.machine_id for m in machines if m.linked})


def submit(
    connection: Connection,
    machines: Sequence[Machine],
    action: Action,
    terms: Terms,
    *,
    output: str = "table",
    repeatable: bool = False,
    retry_of: OrderId | None = None,
) -> Job:
    """Sign an order and hand it in; it is durable when this returns.

    Raises DENIED for what machines would not obey this operator in, NEEDS_APPROVAL when
    another one has to sign it first and nobody waits for that: then scripts get the job as a
    record, since its name is what they approve.
    """
    job = _handed_in(connection, machines, action, terms, repeatable, retry_of)
    say_awaiting([job], output, waits=terms.wait and terms.wait_for_approval)
    return job


def submit_all(
    connection: Connection,
    parts: Sequence[tuple[Sequence[Machine], Action]],
    terms: Terms,
    *,
    output: str,
    repeatable: bool = False,
) -> list[Job]:
    """Hand in several orders, all of them before it is said which await a signature.

    Raises as `submit` does.
    """
    jobs = [
        _handed_in(connection, machines, action, terms, repeatable) for machines, action in parts
    ]
    say_awaiting(jobs, output, waits=terms.wait and terms.wait_for_approval)
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
    check_recognised(connection.home, machines)
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


def task_of(connection: Connection, job: str, machine: str) -> Task | None:
    """A machine's task with its result, which listings leave out."""
    request = GetJobRequest(job_id=job, machine_id=machine)
    tasks = connection.jobs.GetJob(request).job.tasks
    return next((task for task in tasks if task.machine_id == machine), None)


def output_of(connection: Connection, job: str) -> list[TaskOutput]:
    """What the tasks of a job that is over printed, however much that is."""
    events = connection.jobs.WatchJob(WatchJobRequest(job_id=job))
    return [event.output for event in events if event.HasField("output")]


def confirm(machines: Sequence[Machine], doing: str, terms: Terms) -> None:
    """Ask before acting on several machines; INVALID when there is nobody to ask."""
    if len(machines) < 2 or terms.yes:
        return
    names = render_names([machine.name for machine in machines], 10)
    how = "" if terms.rollout is None else f", in batches {render_batches(terms.rollout.batches)}"
    how += render_terms(terms)
    ask(f"{doing} on {len(machines)} machines: {names}{how}?", yes=False)


def _whole_ms(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
