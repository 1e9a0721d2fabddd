"""The standing orders that are in force on this machine: a file for each, with its envelope.

Before each run the order is verified again (`agent.tasks.recurring`), so that whoever can
write a file cannot have anything else done. The backup set has a file of its own
(`agent.tasks.standing`), since a set replaces the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from agent.config import AgentHome
from agent.host import clock, log
from agent.host.files import make_private_directory, read_if_there, write_atomically
from agent.tasks.verify import Believed, Verified, verify_standing
from protocol.codec import decode_envelope, decode_order, encode_envelope, from_ms
from protocol.errors import UNREADABLE, Code, InvalidError, SteadError
from protocol.ids import OrderId, check_id
from protocol.order import Envelope, Order
from protocol.standing import Standing

MOST = 100
REMEMBERED = timedelta(days=30)
"""How long a revocation is remembered beyond need."""

_GONE = ".revoked"


class KeptOrder(msgspec.Struct, frozen=True):
    """A file `standing/ORDER`. `taken_in_at` is this machine's own note."""

    taken_in_at: clock.Moment
    envelope: bytes


class Revoked(msgspec.Struct, frozen=True):
    """A file `standing/ORDER.revoked`: until then the order could be taken in otherwise."""

    until: clock.Moment
    by: str


def take_in(
    home: AgentHome, order: Order, envelope: Envelope, *, now: datetime, past: datetime
) -> None:
    """Put a verified standing order in force; durable when this returns.

    What had ended by `past` gives its place; see `Journal.past`.
    Raises REVOKED for one that was revoked before it came, LIMIT when there are too many.
    """
    make_private_directory(home.standing)
    if (gone := _revoked(home, order.id)) is not None:
        raise SteadError(f"{gone.by} revoked this standing order before it came", code=Code.REVOKED)
    tidy(home, past)
    others = [one for one in orders_in_force(home) if one != order.id]
    if len(others) >= MOST:
        raise SteadError(
            f"this machine has {MOST} standing orders, the most there can be; revoke one with "
            "`stead order revoke`",
            code=Code.LIMIT,
        )
    kept = KeptOrder(now, encode_envelope(envelope))
    write_atomically(home.standing / order.id, msgspec.msgpack.encode(kept))
    log.info("standing_order_taken_in", order=order.id)


def revoke(home: AgentHome, order: OrderId, by: str, until: datetime, *, past: datetime) -> bool:
    """End a standing order, whether it is here or not; whether it was. Durable."""
    check_id("or", order)
    make_private_directory(home.standing)
    tidy(home, past)
    # The note first: a cut between the two leaves an order that is not run any more.
    gone = Revoked(until, by)
    write_atomically(home.standing / f"{order}{_GONE}", msgspec.msgpack.encode(gone))
    path = home.standing / order
    was = path.exists()
    path.unlink(missing_ok=True)
    log.info("standing_order_revoked", order=order, was_in_force=was)
    return was


def orders_in_force(home: AgentHome) -> Iterator[OrderId]:
    """The ids of the standing orders that are kept, oldest first."""
    if not home.standing.is_dir():
        return
    for path in sorted(home.standing.iterdir()):
        try:
            yield OrderId(check_id("or", path.name))
        except InvalidError:
            continue  # a note of a revocation, or a file that was being written


def load_order(home: AgentHome, order: OrderId) -> KeptOrder:
    """A standing order as it is kept.

    Raises REVOKED when it is not in force any more, INVALID when its file is damaged.
    """
    data = read_if_there(home.standing / order)
    gone = _revoked(home, order)
    if data is None or gone is not None:
        by = "" if gone is None else f"; {gone.by} revoked it"
        raise SteadError(f"this standing order is not in force any more{by}", code=Code.REVOKED)
    try:
        return msgspec.msgpack.decode(data, type=KeptOrder)
    except UNREADABLE as error:
        raise InvalidError(
            f"the standing order in {home.standing / order} is damaged: {error}; revoke it and "
            "order it again"
        ) from error


def verified_order(order: OrderId, kept: KeptOrder, believed: Believed) -> Verified:
    """A kept standing order as an operator signed it.

    Raises `SteadError` when it may not be run: BAD_SIGNATURE for what was not signed so.
    """
    verified = verify_standing(
        decode_envelope(kept.envelope), believed, taken_in_at=kept.taken_in_at
    )
    check_is(verified.order, order)
    return verified


def check_is(order: Order, name: OrderId) -> None:
    """Raise BAD_SIGNATURE unless this is the standing order that its file is called after."""
    if order.id != name or order.standing is None:
        raise SteadError("the order behind this file is another one", code=Code.BAD_SIGNATURE)


def standing_of(order: Order) -> Standing:
    """The bounds of an order that `check_is` let pass."""
    assert order.standing is not None
    return order.standing


def changed_at(home: AgentHome, order: OrderId) -> tuple[int, int, int]:
    """What is another one once an order's file was written anew, or gone."""
    try:
        found = (home.standing / order).stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def tidy(home: AgentHome, past: datetime) -> None:
    """Remove orders that had ended by then, and notes that were not needed any more."""
    for path in home.standing.iterdir():
        try:
            if path.suffix == _GONE:
                gone = msgspec.msgpack.decode(path.read_bytes(), type=Revoked)
                over = past - gone.until > REMEMBERED
            else:
                kept = msgspec.msgpack.decode(path.read_bytes(), type=KeptOrder)
                standing = decode_order(decode_envelope(kept.envelope).order).standing
                over = standing is not None and past >= standing.ends_at
        except (OSError, SteadError, *UNREADABLE):
            continue  # looked at when it is to be run, and told then
        if over:
            path.unlink(missing_ok=True)


def until_of(deliver_by_ms: int, now: datetime) -> datetime:
    """How long to remember that an order was revoked; a time that is none is for ever."""
    try:
        return max(from_ms(deliver_by_ms), now)
    except InvalidError:
        return datetime.max.replace(tzinfo=now.tzinfo)


def _revoked(home: AgentHome, order: OrderId) -> Revoked | None:
    data = read_if_there(home.standing / f"{order}{_GONE}")
    if data is None:
        return None
    try:
        return msgspec.msgpack.decode(data, type=Revoked)
    except UNREADABLE:
        return Revoked(datetime.max.replace(tzinfo=UTC), "somebody")
