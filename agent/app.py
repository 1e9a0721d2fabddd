"""Wire the agent together and run it until it is told to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from agent.config import AgentHome
from agent.host import clock, group, log
from agent.host.hostname import hostname
from agent.host.installed import Installed, begin_anew, is_whole
from agent.host.lock import locked
from agent.host.sd_notify import notify, watchdog_interval
from agent.host.stopping import on_stop
from agent.version import VERSION

if TYPE_CHECKING:
    from agent.link.identity import Credentials
    from protocol.v1 import link_pb2

STOP_PATIENCE = timedelta(seconds=20)
REPLACED_PATIENCE = timedelta(hours=1)
"""How long an agent whose files were replaced waits for the end of what runs."""


class Ended(StrEnum):
    """Why the agent of one identity ended."""

    STOPPED = "it was told to"
    IDENTITY_CHANGED = "this machine has a new identity"
    REPLACED = "its files were replaced"


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon the agent does things by itself; tests have less patience."""

    first_inventory: timedelta = timedelta(seconds=2)
    look_for_backups: timedelta = timedelta(minutes=1)
    look_for_runs: timedelta = timedelta(seconds=20)
    look_for_upgrade: timedelta = timedelta(seconds=5)


Listen = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], None]
"""Has a function called in a loop once the agent is to stop."""


def run_agent(home: AgentHome, pace: Pace | None = None, listen: Listen = on_stop) -> None:
    """Be the agent until `listen` says to stop, which is at SIGTERM or SIGINT.

    Raises LOCKED when one runs in this home, PRECONDITION when the machine is not enrolled.
    """
    installed = Installed()
    home.load_settings()
    with locked(home.lock):
        from agent.link.enroll import finish
        from agent.link.first import enroll_first
        from agent.tasks.journal import new_journal

        finish(home)
        enroll_first(home, new_journal())
        ended = Ended.IDENTITY_CHANGED
        while ended is Ended.IDENTITY_CHANGED:
            ended = asyncio.run(_main(home, pace or Pace(), installed, listen))
            if ended is not Ended.STOPPED:
                log.info("agent_begins_anew", reason=ended)
    if ended is Ended.REPLACED:
        begin_anew()


async def _main(home: AgentHome, pace: Pace, installed: Installed, listen: Listen) -> Ended:
    """Be the agent of one identity; why it ended."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    listen(loop, stop.set)
    agent = Agent(home, pace, installed)
    ended = await agent.run(stop)
    return Ended.STOPPED if stop.is_set() else ended


class Agent:
    """The running agent. Everything that it is made of is made here."""

    def __init__(self, home: AgentHome, pace: Pace, installed: Installed) -> None:
        from agent.link.identity import load_identity
        from agent.link.outbox import Outbox
        from agent.link.stay import Link
        from agent.presence import Presence
        from agent.routine import Routine
        from agent.tasks.believe import ceiling_of, load_believed
        from agent.tasks.entry import JournalError
        from agent.tasks.execute import Executor, Turns
        from agent.tasks.intake import Intake
        from agent.tasks.journal import Journal, new_journal
        from agent.tasks.verify import Believed
        from agent.tasks.watching import Watching

        self._home = home
        credentials = load_identity(home)
        journal: Journal | JournalError
        try:
            journal = Journal(home.journal)
        except JournalError as error:
            log.warning("journal_unusable", reason=str(error))
            journal = error

        def believed() -> Believed:
            return load_believed(home, credentials)

        self._journal = journal
        outbox, turns = Outbox(), Turns(installed)
        self._installed, self._turns = installed, turns
        self._watching = Watching(home)
        self._intake = Intake(
            home, believed, journal, outbox, turns, self._watching, self._greet_again
        )
        self._presence = Presence(
            home, self._intake, credentials.identity, lambda: ceiling_of(home, credentials)
        )
        self._link = Link(home, outbox, self._presence, hello=_hello(home), journal=new_journal())
        self._routine = Routine(
            home,
            believed,
            Executor(home, credentials.identity, self._watching),
            turns,
            self._intake,
            self._presence.linked,
        )
        self._pace = pace

    def _greet_again(self) -> None:
        self._link.greet_again()

    async def run(self, stop: asyncio.Event) -> Ended:
        """Run until `stop` is set, this machine has another identity, or the agent other files."""
        from agent.routine import kept_up
        from agent.tasks.journal import Journal

        log.info("agent_started", version=VERSION, process=os.getpid())
        below = group.base()
        controllers = () if below is None else group.settle_in(below)
        log.info("control_groups", directory=str(below or ""), controllers=list(controllers))
        self._intake.settle()
        work = [
            asyncio.create_task(self._link.run()),
            *(asyncio.create_task(kept_up(chore)) for chore in self._chores()),
            asyncio.create_task(_watchdog()),
        ]
        notify("READY=1")
        stopped = asyncio.create_task(stop.wait())
        replaced = asyncio.create_task(self._until_replaced(self._pace.look_for_upgrade))
        work.append(replaced)
        try:
            done, _ = await asyncio.wait({stopped, *work}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
            return Ended.REPLACED if replaced in done else Ended.IDENTITY_CHANGED
        finally:
            if stop.is_set():
                # Not by who begins anew: systemd ends whoever said so once his time is up.
                notify("STOPPING=1")
            # What waits for the new release has not begun, and is not waited for.
            waits = replaced.done() and not self._turns.working
            await self._intake.stop(timedelta() if waits else STOP_PATIENCE)
            stopped.cancel()
            for task in work:
                task.cancel()
            await asyncio.gather(stopped, *work, return_exceptions=True)
            self._presence.gone()
            if isinstance(self._journal, Journal):
                self._journal.close()
            log.info("agent_stopped")

    def _chores(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        routine, pace = self._routine, self._pace
        return [
            partial(routine.report_inventory, pace.first_inventory),
            partial(routine.run_backups, pace.look_for_backups),
            partial(self._watching.keep, pace.look_for_backups),
            partial(routine.run_drills, pace.look_for_backups),
            partial(routine.run_standing, pace.look_for_runs),
            routine.prune,
        ]

    async def _until_replaced(self, look: timedelta) -> None:
        """Return when the agent's files are others, all are there, and nothing runs."""
        since: float | None = None
        before = self._installed.look()
        while True:
            await asyncio.sleep(look.total_seconds())
            found, last = self._installed.look(), before
            before = found
            if not self._installed.is_replaced():
                since = None
                continue
            if since is None:
                since = clock.monotonic()
                log.warning("agent_replaced", running=self._turns.working)
                self._presence.replaced()
            # While a package is unpacked, the next look finds still others.
            waited = clock.monotonic() - since > REPLACED_PATIENCE.total_seconds()
            if is_whole(found) and found == last and (waited or not self._turns.working):
                return


def _hello(home: AgentHome) -> Callable[[Credentials], link_pb2.Hello]:
    from agent.link.identity import load_sealing
    from agent.link.report import last_root
    from protocol.codec import REVISION, to_ms
    from protocol.sealing import sealing_proof
    from protocol.v1 import link_pb2

    def hello(credentials: Credentials) -> link_pb2.Hello:
        public, secret = load_sealing(home)
        return link_pb2.Hello(
            agent_version=VERSION,
            revision=REVISION,
            agent_time_ms=to_ms(clock.now()),
            inventory_root=last_root(home),
            sealing_key=public,
            sealing_proof=sealing_proof(secret, credentials.identity.machine, public),
            hostname=hostname(),
        )

    return hello


async def _watchdog() -> None:
    """Tell systemd that the event loop turns; when it does not, systemd starts the agent anew."""
    interval = watchdog_interval()
    while True:
        await asyncio.sleep(interval.total_seconds() if interval else 3600.0)
        if interval:
            notify("WATCHDOG=1")
