"""The ratchets of machines in the database: who says Hello is judged, and what follows is done.

What these functions do they do in the caller's transaction. The rules are
`controller.authority.ratchet`'s.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from controller.audit.log import append
from controller.authority.ratchet import (
    ACCEPTED,
    Kept,
    Shown,
    Verdict,
    acknowledged,
    approved,
    generation_of,
    judge,
    token_of,
)
from controller.authority.trust import TOLD
from controller.db.schema import installation, machines, ratchets
from controller.db.upsert import upsert
from controller.fleet.scope import machine_row, require_machine
from protocol.errors import Code, SteadError
from protocol.holder import HARDWARE_BYTES, LONGEST_TOKEN, Holder
from protocol.identity import MachineIdentity, OperatorIdentity
from protocol.ids import MachineId, TenantId

ACTIVE = "active"
PARKED = "parked"
WAITING = "waiting"
_KEY = "ratchet"


@dataclass(frozen=True, slots=True)
class Greeted:
    """What Welcome hands out, or why there is none. `parked` cuts whoever is linked.

    `newest` is the generation that counts from now on.
    """

    token: bytes = b""
    newest: int = 0
    refusal: SteadError | None = None
    parked: bool = False


def greet(
    connection: Connection,
    machine: MachineIdentity,
    holder: Holder,
    *,
    linked: bool,
    ratchets_on: bool,
    now: datetime,
) -> Greeted:
    """Judge a holder at Hello. `ratchets_on`: its release knows the ratchet."""
    key = key_of(connection)
    kept = kept_of(connection, machine.machine)
    shown = _shown(key, machine.machine, holder)
    if kept.generation > 0 and not ratchets_on:
        return Greeted(
            refusal=SteadError(
                "this machine has proved before that it is no copy, and this older agent "
                "cannot: upgrade the agent",
                code=Code.UPGRADE_REQUIRED,
            )
        )
    verdict, after = judge(kept, shown, linked=linked, now=now)
    _note(connection, machine, kept, after, verdict, shown, now)
    if verdict in ACCEPTED:
        token = token_of(key, machine.machine, after.generation + 1)
        return Greeted(token if ratchets_on else b"", after.generation)
    if verdict is Verdict.CONTESTED:
        connection.execute(
            update(machines)
            .where(machines.c.id == machine.machine, machines.c.state == ACTIVE)
            .values(state=PARKED)
        )
    return Greeted(refusal=refusal_of(verdict), parked=verdict is Verdict.CONTESTED)


def keep(
    connection: Connection,
    machine: MachineIdentity,
    token: bytes,
    hardware: bytes,
    now: datetime,
) -> int:
    """An agent made a token durable: what it had before counts as old from now on.

    The generation that counts.
    """
    shown = _shown(key_of(connection), machine.machine, Holder(token, hardware))
    kept = kept_of(connection, machine.machine)
    if shown.generation > kept.generation + 1:
        return kept.generation
    after = acknowledged(kept, shown)
    _note(connection, machine, kept, after, Verdict.CURRENT, shown, now)
    return after.generation


def is_clone(connection: Connection, machine: MachineId, holder: Holder, now: datetime) -> bool:
    """Whether this holder would be refused as a clone, and so may become a new machine."""
    shown = _shown(key_of(connection), machine, holder)
    verdict, _ = judge(kept_of(connection, machine), shown, linked=False, now=now)
    return verdict is Verdict.CLONE


def approve(
    connection: Connection,
    operator: OperatorIdentity,
    machine_id: str,
    *,
    older: bool,
    now: datetime,
) -> MachineIdentity:
    """Let a parked machine go on with one of its holders, or a clone be a machine like others.

    PRECONDITION for a machine that is neither. The caller tells `Trust` once this is durable.
    """
    row = require_machine(connection, operator, machine_id)
    identity = MachineIdentity(TenantId(row.tenant_id), MachineId(row.id))
    if row.state not in {PARKED, WAITING}:
        raise SteadError(
            f"{row.name} is {row.state}: only a machine that is parked or waits is approved",
            code=Code.PRECONDITION,
        )
    if row.state == WAITING and older:
        raise SteadError(
            f"{row.name} waits and is not parked: approve it without --older",
            code=Code.PRECONDITION,
        )
    if row.state == PARKED:
        kept = kept_of(connection, identity.machine)
        _write(connection, identity, approved(kept, older=older))
    connection.execute(update(machines).where(machines.c.id == row.id).values(state=ACTIVE))
    body = {"machine": row.id, "name": row.name, "was": row.state, "older": older}
    append(connection, row.tenant_id, f"operator/{operator.name}", "machine_approved", body, now)
    return identity


def refusal_of(verdict: Verdict) -> SteadError:
    """What a holder is told that is not let in."""
    match verdict:
        case Verdict.CLONE:
            return SteadError(
                "another computer is this machine; this one becomes a machine of its own, "
                "which an operator approves with `stead machine approve`",
                code=Code.CLONE,
            )
        case Verdict.WAIT:
            return SteadError(
                "this machine shows an old state while it holds a link: if that link is dead, "
                "all is well within minutes",
                code=Code.LOCKED,
            )
        case _:
            return SteadError(TOLD[Code.PARKED], code=Code.PARKED)


def kept_of(connection: Connection, machine: MachineId) -> Kept:
    """What is kept of a machine's ratchet; that of a new one when there is nothing."""
    row = connection.execute(select(ratchets).where(ratchets.c.machine_id == machine)).one_or_none()
    if row is None:
        return Kept()
    return Kept(**{name: getattr(row, name) for name in Kept.__dataclass_fields__})


def newest(connection: Connection) -> dict[str, int]:
    """Of each machine that has a ratchet, the generation that counts."""
    rows = connection.execute(select(ratchets.c.machine_id, ratchets.c.generation))
    return {row.machine_id: row.generation for row in rows}


def note_old(
    connection: Connection, machine: MachineIdentity, shown: int, newest: int, now: datetime
) -> None:
    """Write down that a call beside the link showed an old token."""
    row = machine_row(connection, machine.machine)
    body = {
        "machine": machine.machine,
        "name": row.name if row is not None else "",
        "shown": shown,
        "newest": newest,
    }
    append(connection, machine.tenant, f"machine/{machine.machine}", "old_token_shown", body, now)


def _write(connection: Connection, machine: MachineIdentity, kept: Kept) -> None:
    values = asdict(kept)
    row = {"machine_id": machine.machine, "tenant_id": machine.tenant, **values}
    statement = upsert(connection, ratchets).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["machine_id"], set_=values))


def _note(
    connection: Connection,
    machine: MachineIdentity,
    before: Kept,
    after: Kept,
    verdict: Verdict,
    shown: Shown,
    now: datetime,
) -> None:
    """Keep what changed, and write down what people will ask for."""
    told_before = verdict is Verdict.CLONE and before.contested == shown.generation
    if verdict is Verdict.CLONE and not told_before:
        after = Kept(**{**asdict(after), "contested": shown.generation})
    if after != before:
        _write(connection, machine, after)
    event = {
        Verdict.ROLLED_BACK: "machine_rolled_back",
        Verdict.RETURNED: "machine_returned",
        Verdict.CLONE: None if told_before else "clone_refused",
        Verdict.CONTESTED: "machine_parked",
    }.get(verdict)
    if event is None and before.hardware and after.hardware != before.hardware:
        event = "machine_moved"
    if event is not None:
        row = machine_row(connection, machine.machine)
        body = {
            "machine": machine.machine,
            "name": row.name if row is not None else "",
            "shown": shown.generation,
            "newest": before.generation,
        }
        append(connection, machine.tenant, f"machine/{machine.machine}", event, body, now)


def _shown(key: bytes, machine: MachineId, holder: Holder) -> Shown:
    token = holder.token if len(holder.token) <= LONGEST_TOKEN else b"?"
    hardware = holder.hardware if len(holder.hardware) == HARDWARE_BYTES else b""
    return Shown(generation_of(key, machine, token), hardware)


def key_of(connection: Connection) -> bytes:
    """The key of the tokens. It is where they are judged: a backup brings both or neither."""
    query = select(installation.c.value).where(installation.c.key == _KEY)
    kept: bytes | None = connection.scalar(query)
    if kept is None:
        kept = os.urandom(32)
        connection.execute(insert(installation), {"key": _KEY, "value": kept})
    return kept
