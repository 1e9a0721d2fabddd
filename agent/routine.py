"""What the agent does by itself: report inventory, back up, drill, tidy the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from agent.config import AgentHome
from agent.host import clock, log
from agent.host.files import make_private_directory
from agent.host.spool import Spool
from agent.tasks.execute import Executor, Turns
from agent.tasks.intake import Intake
from agent.tasks.standing import LastRun, due_backup, due_drill, note_drill, note_run
from agent.tasks.verify import Believed
from protocol.action import Action, CollectInventory, name_of
from protocol.errors import Code, SteadError
from protocol.ids import TaskId
from protocol.outcome import Outcome, OutcomeState

INVENTORY_EVERY = timedelta(days=1)
INVENTORY_LIMIT = timedelta(minutes=5)
RETRY = timedelta(minutes=15)
BACKUP_LIMIT = timedelta(days=2)
DRILL_LIMIT = timedelta(hours=4)
PRUNE_EVERY = timedelta(days=1)
DONE = frozenset({OutcomeState.SUCCEEDED, OutcomeState.PARTIAL})

CHORE_AGAIN = timedelta(minutes=10)


async def kept_up(chore: Callable[[], Awaitable[None]]) -> None:
    """Do a chore, and again after a mistake of ours: none is worth the link, and the others.

    What it failed of may lie on the disk, and the next start would fail of it as well.
    """
    while True:
        try:
            await chore()
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("chore_failed_unexpectedly", error=repr(error))
            await asyncio.sleep(CHORE_AGAIN.total_seconds())
        else:
            return


class Routine:
    """Work that needs no order of its own, done by the same workers as ordered work."""

    def __init__(
        self,
        home: AgentHome,
        believed: Callable[[], Believed],
        executor: Executor,
        turns: Turns,
        intake: Intake,
        linked: asyncio.Event,
    ) -> None:
        self._home = home
        self._believed = believed
        self._executor = executor
        self._turns = turns
        self._intake = intake
        self._linked = linked

    async def report_inventory(self, first: timedelta) -> None:
        """Report everything once there is a link, and then once a day."""
        await asyncio.sleep(first.total_seconds())
        while True:
            await self._linked.wait()
            outcome = await self._do(CollectInventory(), INVENTORY_LIMIT)
            wait = INVENTORY_EVERY if outcome.state in DONE else RETRY
            await asyncio.sleep(wait.total_seconds())

    async def run_backups(self, look: timedelta) -> None:
        """Run the backup set when it is due; one that failed is tried again after a while."""
        while True:
            await asyncio.sleep(look.total_seconds())
            now = clock.now()
            try:
                action = due_backup(self._home, self._believed(), now=now)
            except SteadError as error:
                log.warning("backup_set_refused", code=error.code, reason=str(error))
                await asyncio.sleep(RETRY.total_seconds())
                continue
            if action is None:
                continue
            outcome = await self._do(action, BACKUP_LIMIT)
            if outcome.state in DONE or outcome.state is OutcomeState.CANCELLED:
                # Who cancelled it does not want it in a quarter of an hour, but next time.
                self._note(LastRun(now, outcome.state, outcome.message))
            else:
                await asyncio.sleep(RETRY.total_seconds())

    async def run_drills(self, look: timedelta) -> None:
        """Make a drill when the backup set says that one is due and there is a link.

        One that was not good is noted as well, and told: trying it again until it is good
        would hide what it found.
        """
        while True:
            await asyncio.sleep(look.total_seconds())
            await self._linked.wait()
            now = clock.now()
            try:
                action = due_drill(self._home, self._believed(), now=now)
            except SteadError as error:
                log.warning("drill_refused", code=error.code, reason=str(error))
                await asyncio.sleep(RETRY.total_seconds())
                continue
            if action is None:
                continue
            outcome = await self._do(action, DRILL_LIMIT)
            if outcome.result:
                try:
                    note_drill(self._home, LastRun(now, outcome.state, outcome.message))
                except SteadError as error:
                    log.warning("drill_not_noted", reason=str(error))
            else:
                await asyncio.sleep(RETRY.total_seconds())

    async def run_standing(self, look: timedelta) -> None:
        """Begin the runs of standing orders that are due."""
        while True:
            await asyncio.sleep(look.total_seconds())
            try:
                self._intake.run_due()
            except SteadError as error:
                log.warning("standing_orders_not_run", code=error.code, reason=str(error))

    def _note(self, run: LastRun) -> None:
        try:
            note_run(self._home, run)
        except SteadError as error:
            log.warning("backup_run_not_noted", reason=str(error))

    async def prune(self) -> None:
        """Tidy the journal, now and once a day."""
        while True:
            try:
                gone = self._intake.prune()
            except SteadError as error:
                log.warning("journal_not_pruned", reason=str(error))
            else:
                log.info("journal_pruned", orders=gone)
            await asyncio.sleep(PRUNE_EVERY.total_seconds())

    async def _do(self, action: Action, limit: timedelta) -> Outcome:
        directory = self._home.cache / "routine"
        task = TaskId(clock.new_id("ts"))
        async with self._turns.turn(action):
            try:
                make_private_directory(directory)
                spool = Spool(directory, task)
            except (OSError, SteadError) as error:
                log.warning("routine_not_begun", action=name_of(action), reason=str(error))
                return Outcome(task, OutcomeState.FAILED, Code.STORE_FULL, str(error))
            try:
                outcome = await self._executor.execute(task, action, limit=limit, spool=spool)
            finally:
                spool.remove()
        fields = {"action": name_of(action), "state": outcome.state, "reason": outcome.message}
        tell = log.info if outcome.state in DONE else log.warning
        tell("routine_done", **fields)
        return outcome
