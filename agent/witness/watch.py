"""The agent's process as a witness: judge what the controller tells of the audit logs.

A machine watches its tenant's log and the installation's. It takes a checkpoint only when
it is proven that the log was merely added to; anything else raises an alarm, which stays,
with both checkpoints as evidence, until an operator's signed order takes it back. An alarm
keeps the machine from nothing else. One that a full or broken disk does not take is told all
the same, and written as soon as that can be.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from cryptography import x509

from agent.config import AgentHome
from agent.host import log
from agent.witness.keep import (
    WitnessDamagedError,
    load_watched,
    nothing_known,
    put_aside,
    write_watched,
)
from protocol.checkpoint import (
    MAX_SIGNED_BYTES,
    Found,
    decode_checkpoint,
    decode_signed,
    judge,
    open_checkpoint,
    render_log,
)
from protocol.errors import Code, SteadError
from protocol.ids import TenantId
from protocol.witness import INSTALLATION, Alarm, Watched


class Witness:
    """What one machine keeps. For the agent's own process, which alone calls this."""

    def __init__(self, home: AgentHome) -> None:
        self._home = home
        self._unwritten: list[tuple[str, Alarm]] = []
        self._said: list[tuple[str, Found, datetime]] = []
        self._blind_since: datetime | None = None

    def watched(self, tenant: TenantId, now: datetime) -> Watched:
        """What this machine has to say of the logs, for the controller."""
        try:
            watched = self._load(tenant, now)
            self._blind_since = None
        except SteadError as error:
            log.warning("witness_unusable", reason=str(error))
            self._blind_since = self._blind_since or now
            watched = _with_all(nothing_known(tenant, self._blind_since), self._unwritten)
        self._said = _named(watched)
        return watched

    def take(
        self,
        root: x509.Certificate,
        tenant: TenantId,
        signed: bytes,
        proof: Sequence[bytes],
        now: datetime,
        *,
        distrusted: Collection[bytes] = (),
    ) -> Found:
        """Judge a checkpoint that the controller told, and keep it when it is good.

        A good one is durable when this returns. WRONG_TENANT for a log that this machine
        does not watch, STORE_FULL for a checkpoint that could not be kept. DISTRUSTED, and no
        alarm, for one of a distrusted authority: of a log to which nothing was added since,
        there is no other yet.
        """
        watched = self._load(tenant, now)
        log_id, found = _judged(watched, root, tenant, signed, proof, distrusted)
        if found is Found.NEWER:
            write_watched(self._home, Watched({**watched.kept, log_id: signed}, watched.alarms))
        elif not found.good:
            log.warning("audit_alarm", log=render_log(log_id), found=found)
            self._keep_alarms(watched.with_alarm(log_id, found, signed[:MAX_SIGNED_BYTES], now))
        return found

    def has_news(self, tenant: TenantId, now: datetime) -> bool:
        """Whether there are other alarms than those that `watched` said last."""
        said = self._said
        return _named(self.watched(tenant, now)) != said

    def _load(self, tenant: TenantId, now: datetime) -> Watched:
        try:
            watched = load_watched(self._home)
        except WitnessDamagedError as error:
            log.warning("witness_damaged", reason=str(error))
            put_aside(self._home)
            watched = nothing_known(tenant, now)
            self._keep_alarms(watched)
        if self._unwritten:
            watched = _with_all(watched, self._unwritten)
            self._keep_alarms(watched)
        return watched

    def _keep_alarms(self, watched: Watched) -> None:
        try:
            write_watched(self._home, watched)
            self._unwritten = []
        except SteadError as error:
            log.warning("audit_alarm_not_written", reason=str(error))
            self._unwritten = watched.each_alarm()


def _judged(
    watched: Watched,
    root: x509.Certificate,
    tenant: TenantId,
    signed: bytes,
    proof: Sequence[bytes],
    distrusted: Collection[bytes],
) -> tuple[str, Found]:
    """Of which log a checkpoint is, and what it is to the one that is kept."""
    try:
        told = open_checkpoint(signed, root, distrusted=distrusted)
    except SteadError as error:
        if error.code is Code.DISTRUSTED:
            raise
        log.warning("checkpoint_not_signed", reason=str(error))
        return _log_named(signed, tenant), Found.UNSIGNED
    if told.log not in {tenant, INSTALLATION}:
        raise SteadError(
            f"a checkpoint of {told.log}, which this machine does not watch",
            code=Code.WRONG_TENANT,
        )
    before = watched.checkpoints().get(told.log)
    return told.log, Found.NEWER if before is None else judge(before, told, proof)


def _log_named(signed: bytes, tenant: TenantId) -> str:
    """Which log something unsigned pretends to be of."""
    try:
        named = decode_checkpoint(decode_signed(signed).body).log
    except SteadError:
        return tenant
    return INSTALLATION if named == INSTALLATION else tenant


def _with_all(watched: Watched, alarms: Sequence[tuple[str, Alarm]]) -> Watched:
    """The same with alarms that are in no file yet, where they are not in it by now."""
    made = dict(watched.alarms)
    for log_id, alarm in alarms:
        others = [one for one in made.get(log_id, ()) if one.found is not alarm.found]
        made[log_id] = [*others, alarm]
    return Watched(watched.kept, made)


def _named(watched: Watched) -> list[tuple[str, Found, datetime]]:
    return sorted((log_id, one.found, one.at) for log_id, one in watched.each_alarm())
