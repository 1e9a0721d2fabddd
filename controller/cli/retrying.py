"""What to order again: the order that was signed, and the machines on which it failed.

The controller hands the first order over and is not trusted with it: an operator must not
be made to sign what nobody ordered. So it has to be one that an operator of this
installation signed, under the very id that was asked for.
"""

from __future__ import annotations

from controller.cli.connection import Connection
from controller.cli.exits import OVER
from protocol.codec import decode_envelope, decode_order
from protocol.errors import Code, SteadError
from protocol.order import Envelope, Order, signers_of
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
    # Certificates end; what counts is that the signers were believed at that time.
    signers_of(envelope, root=connection.root, now=order.issued_at, until=order.deliver_by)
    return order


def failed_machines(job: Job, order: Order) -> frozenset[str]:
    """The machines of an order whose task is over and did not succeed."""
    named = frozenset(str(machine) for machine in order.machines)
    failed = {task.machine_id for task in job.tasks if task.state in OVER - {"succeeded"}}
    return named & failed
