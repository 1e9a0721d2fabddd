"""Who signed a job's order, and how many have still to, for those who look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from sqlalchemy import Connection

from controller.jobs import policies
from protocol.approval import judge
from protocol.codec import decode_envelope, decode_order
from protocol.errors import SteadError
from protocol.order import Order, Signer, signers_of


@dataclass(frozen=True, slots=True)
class Signed:
    """An order and its signers. `missing` is how many have still to sign, as of now."""

    order: Order
    counted: Sequence[Signer] = ()
    proposed: Sequence[Signer] = ()
    missing: int = 0


def look(connection: Connection, envelope: bytes, root: x509.Certificate) -> Signed:
    """What was signed, and by whom; by nobody where a later policy rules it out."""
    opened = decode_envelope(envelope)
    order = decode_order(opened.order)
    try:
        signers = signers_of(opened, root=root, now=order.issued_at, until=order.deliver_by)
        approval = judge(order, signers, policies.in_force(connection, order.tenant, root))
    except SteadError:
        return Signed(order)
    return Signed(order, approval.counted, approval.proposed, approval.missing)
