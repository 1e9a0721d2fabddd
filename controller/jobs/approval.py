"""Orders that wait for an operator's signature: approved, rejected, let go.

Every function is an act inside one database transaction. That an order waits here is a
service to operators: a machine counts the signatures itself (`protocol.approval`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, Row, insert, select, update

from controller.audit.log import append
from controller.db.schema import jobs, rollouts, tasks
from controller.jobs import policies
from controller.jobs.rollout import Course
from controller.jobs.signer import note_shown
from controller.jobs.standing import note_standing
from controller.jobs.state import AWAITING, QUEUED, WAITING
from protocol.approval import Approval, judge
from protocol.codec import decode_envelope, decode_order, encode_envelope
from protocol.errors import Code, DeniedError, InvalidError, SteadError
from protocol.identity import OperatorIdentity, read_certificate
from protocol.order import Envelope, Order, Signature, signers_of
from protocol.outcome import OutcomeState

MAX_REASON = 1000


def course_values(course: Course) -> dict[str, Any]:
    """The columns of a course."""
    return {
        "batch": course.batch,
        "phase": course.phase.value,
        "soaked_at": course.soaked_at,
        "forgiven": course.forgiven,
        "reason": course.reason,
    }


def state_to_begin(order: Order) -> str:
    """The state in which a task of an order begins that nobody has to sign any more."""
    return QUEUED if order.rollout is None else WAITING


def let_go(connection: Connection, order: Order) -> None:
    """Begin what is kept of a whole order beside its tasks."""
    note_standing(connection, order)
    if order.rollout is not None:
        connection.execute(
            insert(rollouts).values(
                job_id=order.id, tenant_id=order.tenant, **course_values(Course())
            )
        )


def approve(
    connection: Connection,
    job: Row[Any],
    given: Signature,
    operator: OperatorIdentity,
    *,
    root: x509.Certificate,
    now: datetime,
) -> tuple[Order, Approval]:
    """Add an operator's signature to an order that waits for one.

    Raises PRECONDITION for one that does not wait, BAD_SIGNATURE for a signature that is not
    the caller's over these very bytes, DENIED when it would not count, as that of somebody who
    signed before.
    """
    _check_awaits(connection, job)
    envelope = decode_envelope(job.envelope)
    order = decode_order(envelope.order)
    [signer] = signers_of(Envelope(envelope.order, (given,)), root=root, now=now)
    if signer.identity != operator:
        raise SteadError(
            f"{signer.identity.name} signed and {operator.name} handed it in",
            code=Code.BAD_SIGNATURE,
        )
    added = replace(envelope, signatures=(*envelope.signatures, given))
    signers = signers_of(added, root=root, now=order.issued_at, until=order.deliver_by)
    policy = policies.in_force(connection, order.tenant, root)
    approval = judge(order, signers, policy)
    if signer not in approval.counted:
        raise DeniedError(
            f"{operator.name} is {operator.role} and may not order this, so cannot approve it"
        )
    connection.execute(
        update(jobs).where(jobs.c.id == job.id).values(envelope=encode_envelope(added))
    )
    note_shown(connection, operator.name, read_certificate(given.certificate))
    body = {"order": order.id, "missing": approval.missing}
    append(connection, order.tenant, f"operator/{operator.name}", "order_approved", body, now)
    if approval.is_whole:
        connection.execute(
            update(tasks)
            .where(tasks.c.job_id == job.id, tasks.c.state == AWAITING)
            .values(state=state_to_begin(order))
        )
        let_go(connection, order)
    return order, approval


def reject(
    connection: Connection, job: Row[Any], operator: OperatorIdentity, reason: str, now: datetime
) -> None:
    """End an order that waits for a signature. Raises PRECONDITION for one that does not."""
    if len(reason) > MAX_REASON:
        raise InvalidError(f"a reason has at most {MAX_REASON} characters")
    _check_awaits(connection, job)
    said = f": {reason}" if reason else ""
    connection.execute(
        update(tasks)
        .where(tasks.c.job_id == job.id, tasks.c.state == AWAITING)
        .values(
            state=OutcomeState.REJECTED.value,
            code=Code.DENIED.value,
            message=f"{operator.name} rejected it{said}",
            ended_at=now,
        )
    )
    body = {"order": job.id, "reason": reason}
    append(connection, job.tenant_id, f"operator/{operator.name}", "order_rejected", body, now)


def awaits(connection: Connection, job: str) -> bool:
    """Whether an order waits for somebody to sign it."""
    query = select(tasks.c.id).where(tasks.c.job_id == job, tasks.c.state == AWAITING).limit(1)
    return connection.scalar(query) is not None


def _check_awaits(connection: Connection, job: Row[Any]) -> None:
    if not awaits(connection, job.id):
        raise SteadError(
            f"{job.id} does not wait for an operator's signature; see `stead job show {job.id}`",
            code=Code.PRECONDITION,
        )
