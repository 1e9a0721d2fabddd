"""Keep the last checkpoint of each audit log that this machine watches, and raise alarms.

A machine watches its tenant's log and the installation's. It takes a checkpoint only when
it is proven that the log was merely added to; anything else raises an alarm, which stays,
with both checkpoints as evidence, until an operator's signed order takes it back. An alarm
keeps the machine from nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from cryptography import x509

from agent.config import AgentHome
from agent.host import log
from agent.host.files import read_if_there, write_atomically
from protocol.checkpoint import (
    MAX_SIGNED_BYTES,
    Checkpoint,
    Found,
    decode_checkpoint,
    decode_signed,
    judge,
    open_checkpoint,
    render_log,
)
from protocol.errors import Code, SteadError
from protocol.ids import TenantId
from protocol.witness import Alarm

INSTALLATION = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """Signed checkpoints and alarms, by log: a tenant's id, or empty for the installation's."""

    kept: dict[str, bytes] = field(default_factory=dict)
    alarms: dict[str, Alarm] = field(default_factory=dict)

    def sizes(self) -> dict[str, int]:
        """Of how many entries each kept checkpoint is."""
        return {log_id: _checkpoint(signed).size for log_id, signed in self.kept.items()}


def load_watched(home: AgentHome) -> Watched:
    """What this machine keeps; nothing before the first checkpoint.

    PRECONDITION when the file is damaged: evidence is not thrown away unseen.
    """
    try:
        data = read_if_there(home.witness)
        watched = Watched() if data is None else msgspec.json.decode(data, type=Watched)
        watched.sizes()
    except (OSError, msgspec.DecodeError, SteadError) as error:
        raise SteadError(
            f"{home.witness} cannot be used: {error}; keep a copy and remove it, and this "
            "machine begins anew with the next checkpoint",
            code=Code.PRECONDITION,
        ) from error
    return watched


def take_checkpoint(
    home: AgentHome,
    root: x509.Certificate,
    tenant: TenantId,
    signed: bytes,
    proof: Sequence[bytes],
    now: datetime,
) -> Found:
    """Judge a checkpoint that the controller told, and keep it when it is good.

    Durable when this returns, and so is an alarm. WRONG_TENANT for a log that this machine
    does not watch.
    """
    watched = load_watched(home)
    try:
        told = open_checkpoint(signed, root)
    except SteadError as error:
        log.warning("checkpoint_not_signed", reason=str(error))
        _raise(home, watched, Found.UNSIGNED, _log_named(signed, tenant), signed, now)
        return Found.UNSIGNED
    if told.log not in {tenant, INSTALLATION}:
        raise SteadError(
            f"a checkpoint of {told.log}, which this machine does not watch",
            code=Code.WRONG_TENANT,
        )
    before = watched.kept.get(told.log)
    found = Found.NEWER if before is None else judge(_checkpoint(before), told, proof)
    if found is Found.NEWER:
        _write(home, Watched({**watched.kept, told.log: signed}, watched.alarms))
    elif not found.good:
        _raise(home, watched, found, told.log, signed, now)
    return found


def reset_watched(home: AgentHome) -> Watched:
    """Forget everything, and say what it was. A copy of the file stays beside it."""
    watched = load_watched(home)
    data = read_if_there(home.witness)
    if data is not None:
        write_atomically(home.witness.with_suffix(".old"), data)
        _write(home, Watched())
    return watched


def render_alarm(log_id: str, alarm: Alarm) -> str:
    """An alarm in words."""
    words = {
        Found.FORKED: "another history was told than the one that was kept",
        Found.SHRUNK: "fewer entries were told than were kept",
        Found.UNSIGNED: "a checkpoint was told that nobody of this installation signed",
    }
    name = "the installation's audit log" if not log_id else "the tenant's audit log"
    what = words.get(alarm.found, alarm.found)
    return f"{name}: {what}, first at {alarm.at:%Y-%m-%d %H:%M:%S}Z, {alarm.times} times"


def _raise(
    home: AgentHome, watched: Watched, found: Found, log_id: str, told: bytes, now: datetime
) -> None:
    first = watched.alarms.get(log_id)
    if first is None:
        kept = watched.kept.get(log_id, b"")
        alarm = Alarm(found, now, 1, kept, told[:MAX_SIGNED_BYTES])
        log.warning("audit_alarm_raised", log=render_log(log_id), found=found)
    else:
        alarm = Alarm(first.found, first.at, first.times + 1, first.kept, first.told)
    _write(home, Watched(watched.kept, {**watched.alarms, log_id: alarm}))


def _log_named(signed: bytes, tenant: TenantId) -> str:
    """Which log something unsigned pretends to be of."""
    try:
        named = _checkpoint(signed).log
    except SteadError:
        return tenant
    return INSTALLATION if named == INSTALLATION else tenant


def _checkpoint(signed: bytes) -> Checkpoint:
    return decode_checkpoint(decode_signed(signed).body)


def _write(home: AgentHome, watched: Watched) -> None:
    write_atomically(home.witness, msgspec.json.encode(watched))
