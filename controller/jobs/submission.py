"""Take an order in: check it as its machines will, and make it a durable job.

What is refused here would be refused by every machine anyway; saying so at once is a
service to the operator, not a safeguard.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, insert, select

from controller import clock
from controller.audit.log import append
from controller.db.schema import jobs, machines, tasks
from controller.jobs import policies
from controller.jobs.approval import MAX_REASON, let_go, state_to_begin
from controller.jobs.signer import note_shown
from controller.jobs.standing import standing_named
from controller.jobs.state import AWAITING
from protocol.action import name_of
from protocol.approval import Approval, check_may_order, judge
from protocol.codec import decode_envelope, decode_order
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import OperatorIdentity, read_certificate
from protocol.ids import OrderId
from protocol.order import (
    CLOCK_TOLERANCE,
    MAX_ENVELOPE_BYTES,
    MAX_SIGNATURES,
    Order,
    Signer,
    check_times,
    signers_of,
)
from protocol.rollout import check_rollout, render_amount, render_batches
from protocol.standing import check_standing
from protocol.summary import summary_of
from protocol.window import parse_windows

MAX_MACHINES = 20_000


def read_order(
    envelope: bytes, operator: OperatorIdentity, *, root: x509.Certificate, now: datetime
) -> tuple[Order, tuple[Signer, ...]]:
    """Decode an envelope and check it as far as anybody but its machines can."""
    # Each of its machines is sent all of it.
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise InvalidError(f"an envelope has at most {MAX_ENVELOPE_BYTES} bytes")
    opened = decode_envelope(envelope)
    if len(opened.signatures) > MAX_SIGNATURES:
        raise InvalidError(f"an order has at most {MAX_SIGNATURES} signatures")
    signers = signers_of(opened, root=root, now=now)
    signer = signers[0].identity
    if signer != operator:
        raise SteadError(
            f"the order was signed by {signer.name} and handed in by {operator.name}",
            code=Code.BAD_SIGNATURE,
        )
    order = decode_order(opened.order)
    if not operator.may_see(order.tenant):
        raise NotFoundError(f"there is no tenant {order.tenant}")
    if not 0 < len(order.machines) <= MAX_MACHINES or len(set(order.machines)) != len(
        order.machines
    ):
        raise InvalidError(f"an order names 1 to {MAX_MACHINES} machines, each once")
    if len(order.reason) > MAX_REASON:  # a list has those of a thousand orders
        raise InvalidError(f"an order's reason has at most {MAX_REASON} characters")
    if order.deliver_by <= now:
        raise SteadError(
            f"the order was to be delivered by {order.deliver_by:%Y-%m-%d %H:%M:%S}Z; the "
            f"controller's clock says {now:%Y-%m-%d %H:%M:%S}Z",
            code=Code.CLOCK_SKEW,
        )
    if order.issued_at > now + CLOCK_TOLERANCE:
        raise SteadError(
            f"the order was signed at {order.issued_at:%Y-%m-%d %H:%M:%S}Z, in the future: the "
            f"controller's clock says {now:%Y-%m-%d %H:%M:%S}Z",
            code=Code.CLOCK_SKEW,
        )
    if order.rollout is not None:
        check_rollout(order.rollout)
    parse_windows(order.windows)
    if order.standing is not None:
        check_standing(order.standing, order.action, order.issued_at)
    check_times(order)
    return order, signers


def record(
    connection: Connection,
    order: Order,
    envelope: bytes,
    signers: Sequence[Signer],
    *,
    root: x509.Certificate,
    propose: bool,
    now: datetime,
) -> OrderId:
    """Insert the job with its tasks; an order that is there already is left as it is.

    One that somebody else has still to sign awaits that. Raises DENIED as
    `protocol.approval.check_may_order` does.
    """
    operator = signers[0].identity
    known = connection.execute(select(jobs.c.envelope).where(jobs.c.id == order.id)).scalar()
    if known is not None:
        if decode_envelope(known).order != decode_envelope(envelope).order:
            raise SteadError(
                f"another order has the id {order.id} already", code=Code.ALREADY_EXISTS
            )
        return order.id
    approval = _judged(connection, order, signers, root=root, propose=propose)
    _check_machines(connection, order)
    signer = read_certificate(decode_envelope(envelope).signatures[0].certificate)
    note_shown(connection, operator.name, signer)
    connection.execute(
        insert(jobs).values(
            id=order.id,
            tenant_id=order.tenant,
            action=name_of(order.action),
            envelope=envelope,
            operator=operator.name,
            operator_role=operator.role.value,
            submitted_at=now,
            not_before=order.not_before,
            deliver_by=order.deliver_by,
            timeout_s=int(order.timeout.total_seconds()),
            reason=order.reason,
            summary=_summary_of(order),
            standing_id=standing_named(connection, order),
        )
    )
    connection.execute(
        insert(tasks),
        [
            {
                "id": clock.new_id("ts"),
                "job_id": order.id,
                "tenant_id": order.tenant,
                "machine_id": machine,
                "state": state_to_begin(order) if approval.is_whole else AWAITING,
                "output_truncated": False,
                "output_bytes": 0,
            }
            for machine in order.machines
        ],
    )
    if approval.is_whole:
        let_go(connection, order)
    append(
        connection,
        order.tenant,
        actor=f"operator/{operator.name}",
        event="order_submitted",
        body={
            "order": order.id,
            "action": name_of(order.action),
            "summary": _summary_of(order),
            "machines": list(order.machines),
            "reason": order.reason,
            **_terms_of(order),
            **_awaited(approval),
        },
        at=now,
    )
    return order.id


def _judged(
    connection: Connection,
    order: Order,
    signers: Sequence[Signer],
    *,
    root: x509.Certificate,
    propose: bool,
) -> Approval:
    policy = policies.in_force(connection, order.tenant, root)
    check_may_order(order.action, signers[0].identity, policy, proposing=propose)
    return judge(order, signers, policy)


def _awaited(approval: Approval) -> dict[str, Any]:
    """What an order waits for that is not whole, for the audit log."""
    if approval.is_whole:
        return {}
    return {"missing": approval.missing, "proposed": not approval.counted}


def _summary_of(order: Order) -> str:
    """What an order does in a few words; one that stands says how often, and so do its runs."""
    summary = summary_of(order.action)
    return summary if order.standing is None else f"{order.standing.schedule}: {summary}"


def _terms_of(order: Order) -> dict[str, Any]:
    """The terms of an order that has any, for the audit log."""
    terms: dict[str, Any] = {}
    if order.rollout is not None:
        terms |= {
            "batches": render_batches(order.rollout.batches),
            "soak_s": order.rollout.soak_s,
            "max_failures": render_amount(order.rollout.max_failures),
        }
    if order.windows:
        terms |= {"windows": list(order.windows), "catch_up": order.catch_up}
    if order.retry_of is not None:
        terms |= {"retry_of": order.retry_of}
    if order.standing is not None:
        terms |= {
            "schedule": order.standing.schedule,
            "ends_at": order.standing.ends_at.isoformat(),
            "max_runs": order.standing.max_runs,
        }
    return terms


def _check_machines(connection: Connection, order: Order) -> None:
    active: set[str] = set()
    for part in _slices(order.machines, 500):
        query = select(machines.c.id).where(
            machines.c.tenant_id == order.tenant,
            machines.c.state == "active",
            machines.c.id.in_(part),
        )
        active.update(connection.execute(query).scalars())
    if missing := [machine for machine in order.machines if machine not in active]:
        raise NotFoundError(f"the tenant has no active machine {missing[0]}")


def _slices(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
