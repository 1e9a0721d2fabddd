"""What to order again: the order that was signed, and the machines on which it failed.

The controller hands the first order over and is not trusted with it: an operator must not
be made to sign what nobody ordered. So it has to be one that an operator of this
installation signed, under the very id that was asked for.
"""

from __future__ import annotations

from cryptography import x509

from controller.cli.operator.connection import Connection
from controller.cli.operator.revoking import newest_list, read_of
from controller.cli.output.exits import OVER
from protocol.action import GetFile
from protocol.codec import decode_envelope, decode_order
from protocol.errors import Code, InvalidError, SteadError
from protocol.order import Envelope, Order, Signer, signers_of
from protocol.revocation import check_not_revoked
from protocol.v1.job_pb2 import GetOrderRequest, Job


def fetched_envelope(connection: Connection, job: str) -> Envelope:
    """What the controller has behind a job; BAD_SIGNATURE when it is another order's."""
    answer = connection.jobs.GetOrder(GetOrderRequest(job_id=job))
    envelope = decode_envelope(answer.envelope)
    given = decode_order(envelope.order).id
    if given != job:
        raise SteadError(
            f"the controller gave the order {given} for {job}", code=Code.BAD_SIGNATURE
        )
    return envelope


def signed_order(connection: Connection, job: str) -> Order:
    """The order behind a job; BAD_SIGNATURE when nobody signed it as it is."""
    envelope = fetched_envelope(connection, job)
    order = decode_order(envelope.order)
    signers_in(envelope, order, connection.root)
    return order


def signers_in(envelope: Envelope, order: Order, root: x509.Certificate) -> tuple[Signer, ...]:
    """Who signed an order, or raise as `protocol.order.signers_of`.

    Certificates end; what counts is that the signers were believed at that time.
    """
    return signers_of(envelope, root=root, now=order.issued_at, until=order.deliver_by)


def order_to_repeat(connection: Connection, job: str, *, own: bool) -> Order:
    """The order behind a job, for whoever is to sign the same again; raises as `signed_order`.

    Besides, INVALID for a get, whose files nobody would fetch, and REVOKED when one of its
    signers has been: an operator must not be made to give new life to what a stolen key signed.
    `own` is for a job that the controller chose as the last one that this operator ordered:
    BAD_SIGNATURE when somebody else did.
    """
    envelope = fetched_envelope(connection, job)
    order = decode_order(envelope.order)
    if isinstance(order.action, GetFile):
        raise InvalidError(
            "what a get brings is fetched by the command that ordered it: give that one again"
        )
    signers = signers_in(envelope, order, connection.root)
    revoked = read_of(newest_list(connection), connection.root)
    for signer in signers:
        check_not_revoked(revoked, signer)
    name = connection.operator.name
    if own and name not in {signer.identity.name for signer in signers}:
        raise SteadError(
            f"the controller gave {job} as the last order of {name}, who did not sign it",
            code=Code.BAD_SIGNATURE,
        )
    return order


def failed_machines(job: Job, order: Order) -> frozenset[str]:
    """The machines of an order whose task is over and did not succeed."""
    named = frozenset(str(machine) for machine in order.machines)
    failed = {task.machine_id for task in job.tasks if task.state in OVER - {"succeeded"}}
    return named & failed
