"""What the agent knows of its link: told to the tasks, and kept in a file for people."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from agent.config import AgentHome
from agent.host import clock, log
from agent.host.files import read_if_there
from agent.host.sd_notify import notify
from agent.link.identity import load_identity
from agent.link.report import last_root
from agent.link.stay import LinkReport, LinkState
from agent.tasks.intake import Intake
from agent.tasks.verify import believable_time
from agent.version import VERSION
from agent.witness.watch import Witness
from protocol.ceiling import Ceiling
from protocol.errors import UNREADABLE, InvalidError, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import TaskId
from protocol.witness import Watched

STALE = 3.5
"""After so many heartbeats that an agent did not note, what it said last counts no more."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The file `status.json`. `clock_ahead_s` is this clock's lead over the controller's.

    `list_refused` says why the last list of revoked operators was not taken, `policy_refused`
    why the last policy was not. `replaced`: the agent's files are others than those it was
    started from; it begins nothing, and begins anew once nothing runs any more.
    """

    version: str
    process: int
    tenant: str
    machine: str
    link: LinkState
    since: clock.Moment
    reason: str = ""
    code: str = ""
    again_at: clock.Moment | None = None
    last_heartbeat_at: clock.Moment | None = None
    heartbeat_s: float = 0.0
    clock_ahead_s: float | None = None
    running: tuple[str, ...] = ()
    journal: str = "ok"
    list_refused: str = ""
    policy_refused: str = ""
    replaced: bool = False


def is_stale(status: Status, now: datetime) -> bool:
    """True when an agent that calls itself connected has not been heard for too long.

    It writes its status at every sign of life; one that was stopped or hangs does not.
    """
    heard = status.last_heartbeat_at
    if status.link is not LinkState.CONNECTED or heard is None:
        return False
    return now - heard > STALE * timedelta(seconds=status.heartbeat_s)


def load_status(home: AgentHome) -> Status | None:
    """What the agent last wrote; None when none has run. Raises `InvalidError`."""
    data = read_if_there(home.status)
    try:
        return None if data is None else msgspec.json.decode(data, type=Status)
    except UNREADABLE as error:
        raise InvalidError(f"{home.status} cannot be read: {error}") from error


class Presence:
    """Listens to the link; see `agent.link.stay.Told`."""

    def __init__(
        self,
        home: AgentHome,
        intake: Intake,
        identity: MachineIdentity,
        ceiling: Callable[[], Ceiling | None],
    ) -> None:
        self._ceiling = ceiling
        self._home = home
        self._intake = intake
        self._identity = identity
        self._witness = Witness(home)
        self._link = LinkReport(LinkState.CONNECTING, clock.now())
        self._last_heartbeat_at: datetime | None = None
        self._heartbeat = timedelta()
        self._ahead_s: float | None = None
        self._list_refused = ""
        self._policy_refused = ""
        self._replaced = False
        self.linked = asyncio.Event()
        """Set while there is a link."""

    def link_changed(self, report: LinkReport) -> None:
        """The link is in another state."""
        self._link = report
        if report.state is not LinkState.CONNECTED:
            self.linked.clear()
        self._write()

    def connected(self, controller_time: datetime, heartbeat: timedelta) -> None:
        """Welcome has come, and there will be a sign of life this often."""
        self._heartbeat = heartbeat
        log.info("link_connected")
        self._link = LinkReport(LinkState.CONNECTED, clock.now())
        self.linked.set()
        self.alive(controller_time)

    def alive(self, controller_time: datetime) -> None:
        """A heartbeat was acknowledged."""
        now = clock.now()
        self._last_heartbeat_at = now
        self._ahead_s = round((now - controller_time).total_seconds(), 1)
        believed = believable_time(now, controller_time)
        if believed is not None:
            self._intake.saw(believed)
        self._write()

    def offered(self, task: TaskId, envelope: bytes) -> None:
        """A task is on offer."""
        self._intake.offered(task, envelope)

    def acknowledged(self, task: TaskId) -> None:
        """An outcome is durable at the controller."""
        self._intake.acknowledged(task)

    def revoked(self, revocations: bytes) -> None:
        """This is said to be the newest list of revoked operators."""
        self._list_refused = self._intake.revoked(revocations)
        self._write()

    def ruled(self, policy: bytes) -> None:
        """This is said to be the newest policy of the machine's tenant."""
        self._policy_refused = self._intake.ruled(policy)
        self._write()

    def watched(self) -> Watched:
        """What this machine keeps of the audit logs, and what it found wrong with them."""
        return self._witness.watched(self._identity.tenant, clock.now())

    def told_checkpoint(self, signed: bytes, proof: Sequence[bytes]) -> bool:
        """An audit log is said to be this now. True when the controller should hear `watched`."""
        now, tenant = clock.now(), self._identity.tenant
        try:
            known = load_identity(self._home)
            found = self._witness.take(
                known.root, tenant, signed, proof, now, distrusted=known.distrusted
            )
        except SteadError as error:
            log.warning("checkpoint_not_kept", code=error.code, reason=str(error))
            return True
        return not found.good or self._witness.has_news(tenant, now)

    def running(self) -> Sequence[TaskId]:
        """The tasks whose leases a heartbeat renews."""
        return self._intake.running()

    def inventory_root(self) -> bytes:
        """The hash over all sections that were last reported."""
        return last_root(self._home)

    def ceiling(self) -> Ceiling | None:
        """What this machine's own administrator rules out; None when that cannot be read."""
        return self._ceiling()

    def replaced(self) -> None:
        """The agent's files are others by now."""
        self._replaced = True
        self._write()

    def gone(self) -> None:
        """The agent ends."""
        self._home.status.unlink(missing_ok=True)

    def _write(self) -> None:
        problem = self._intake.problem
        status = Status(
            version=VERSION,
            process=os.getpid(),
            tenant=self._identity.tenant,
            machine=self._identity.machine,
            link=self._link.state,
            since=self._link.since,
            reason=self._link.reason,
            code=self._link.code,
            again_at=self._link.again_at,
            last_heartbeat_at=self._last_heartbeat_at,
            heartbeat_s=self._heartbeat.total_seconds(),
            clock_ahead_s=self._ahead_s,
            running=tuple(self._intake.running()),
            journal="ok" if problem is None else str(problem),
            list_refused=self._list_refused,
            policy_refused=self._policy_refused,
            replaced=self._replaced,
        )
        # Not made durable: it is of no use after a crash.
        aside = self._home.status.with_suffix(".new")
        try:
            aside.write_bytes(msgspec.json.encode(status))
            aside.replace(self._home.status)
        except OSError as error:
            log.warning("status_not_written", reason=error.strerror)
        notify(f"STATUS={status.link} {status.reason}".strip())
