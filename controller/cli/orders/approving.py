"""`stead job approve` and `reject`: what others ordered or proposed, signed by a second one."""

from __future__ import annotations

import rich_click as click
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller.cli.app import App
from controller.cli.operator.choice import machines_of
from controller.cli.operator.connection import Connection
from controller.cli.operator.recognising import check_recognised
from controller.cli.operator.revoking import newest_list, read_of
from controller.cli.operator.ruling import is_awaiting, newest_policy
from controller.cli.options.usual import yes_option
from controller.cli.orders.following import follow, job_now
from controller.cli.orders.outcomes import finish, task_rows
from controller.cli.orders.retrying import fetched_envelope, signers_in
from controller.cli.orders.reviewing import for_people, lines_of, long_lines, review_row
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, emit_one, note, output_option
from controller.cli.output.exits import DONE
from protocol.approval import Approval, check_holds, judge
from protocol.codec import decode_order
from protocol.errors import Code, DeniedError, SteadError
from protocol.identity import key_hash
from protocol.order import Envelope, Order, Signer, signed_bytes
from protocol.revocation import check_not_revoked
from protocol.v1.job_pb2 import ApproveJobRequest, RejectJobRequest


@click.command(epilog="Example: stead job approve or-01jt… --show")
@click.argument("job")
@click.option("--show", "whole", is_flag=True, help="Show long values and every machine, too.")
@click.option("--wait/--no-wait", default=False, help="Wait for the end of the job.")
@click.option("--dry-run", is_flag=True, help="Show what you would sign; sign nothing.")
@yes_option
@output_option
@click.pass_obj
def approve(
    app: App, job: str, output: str, *, whole: bool, wait: bool, dry_run: bool, yes: bool
) -> int:
    """Sign an order that takes your signature as well, after reading what it does.

    Shows what is in the very bytes that you sign. For orders that take two operators, and for
    what the help desk proposed; `stead job ls --state awaiting` lists both.
    """
    connection = app.connection
    found = job_now(connection, job)
    if not is_awaiting(found):
        raise SteadError(
            f"{job} does not wait for a signature; see `stead job show {job}`",
            code=Code.PRECONDITION,
        )
    envelope = fetched_envelope(connection, job)
    order = decode_order(envelope.order)
    approval = _as_it_stands(connection, envelope, order)
    machines = machines_of(connection, frozenset(order.machines))
    names = {machine.machine_id: machine.name for machine in machines}
    named = [machine for machine in machines if machine.machine_id in set(order.machines)]
    check_recognised(connection.home, named, dry_run=dry_run)
    row = review_row(order, approval, names, whole=whole)
    for line in long_lines(order, row["machines"]) if whole else ():
        note(line)
    if dry_run:
        ids = {"machine_ids": list(order.machines)}
        emit_one(for_people(row) if output == "table" else {**row, **ids}, output)
        return DONE
    ask("Sign this order?", yes=yes, first="read it with --dry-run", shown=lines_of(row))
    request = ApproveJobRequest(
        job_id=job,
        certificate=connection.certificate.public_bytes(Encoding.DER),
        signature=connection.sign(signed_bytes(envelope.order)),
    )
    found = connection.jobs.ApproveJob(request).job
    if found.signatures_missing:
        note(f"{job} still awaits {found.signatures_missing} more")
    if wait:
        return finish(follow(connection, found, live=False, lines=True), output)
    emit(task_rows(found), output, columns=("machine", "state", "message"))
    return DONE


@click.command(epilog="Example: stead job reject or-01jt… --reason 'wrong machines'")
@click.argument("job")
@click.option("--reason", default="", help="Why; kept in the audit log and shown.")
@yes_option
@output_option
@click.pass_obj
def reject(app: App, job: str, reason: str, output: str, *, yes: bool) -> int:
    """End an order that awaits a signature, without any machine getting it."""
    connection = app.connection
    ask(f"Reject {job}?", yes=yes, first=f"look with `stead job show {job}`")
    found = connection.jobs.RejectJob(RejectJobRequest(job_id=job, reason=reason)).job
    emit(task_rows(found), output, columns=("machine", "state", "message"))
    return DONE


def _as_it_stands(connection: Connection, envelope: Envelope, order: Order) -> Approval:
    """Who signed so far. Raises unless this operator's signature would count beside theirs."""
    signers = signers_in(envelope, order, connection.root)
    revoked = read_of(newest_list(connection), connection.root)
    for signer in signers:
        check_not_revoked(revoked, signer)
    policy = newest_policy(connection, order.tenant).policy
    public = connection.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    own = Signer(connection.operator, key_hash(public))
    if any(own.identity.name == one.identity.name or own.key == one.key for one in signers):
        raise DeniedError(
            f"{own.identity.name} has signed {order.id} already; somebody else has to approve it"
        )
    before = judge(order, signers, policy)
    after = judge(order, (*signers, own), policy)
    if own not in after.counted:
        raise DeniedError(
            f"{own.identity.name} is {own.identity.role} and may not order this, so cannot "
            "approve it"
        )
    check_holds(order, after, policy)
    return before
