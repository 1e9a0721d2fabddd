"""Take tasks in: what is offered, what comes due, and what an earlier agent left.

The order of steps is what makes execution at most once: verified and accepted in the
journal here, started, executed and ended in `agent.tasks.carrying`, told, acknowledged.
Each is durable before the next begins. What a killed agent left is settled first when
the next one starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from agent.actions.script import remove_scripts
from agent.config import AgentHome
from agent.host import clock, log
from agent.host.files import make_private_directory
from agent.host.marked import end_marked
from agent.power.record import remove_records
from agent.tasks.along import take_what_came_along
from agent.tasks.carrying import Carrying
from agent.tasks.entry import Entry, JournalError, State
from agent.tasks.execute import Executor, Turns
from agent.tasks.interrupted import interrupted
from agent.tasks.journal import Journal
from agent.tasks.policy import policy_refused
from agent.tasks.recurring import Due, Recurring
from agent.tasks.revoked import revocations_refused
from agent.tasks.stored import Stored, cannot_tell
from agent.tasks.telling import Telling
from agent.tasks.verify import Believed, Verified, verify, verify_standing
from agent.tasks.watching import Watching
from protocol.action import name_of
from protocol.codec import decode_envelope
from protocol.errors import InvalidError, SteadError
from protocol.ids import OrderId, TaskId, check_id
from protocol.outcome import rejected

JOURNAL_RETRY_S = 5.0


class Intake:
    """See the module.

    `believed` is asked for every order, so that what the machine's administrator denies
    counts at once. `journal` is an error when the journal cannot be relied on. `greet_again`
    is called when this machine can prove its keys in another way than it did.
    """

    def __init__(
        self,
        home: AgentHome,
        believed: Callable[[], Believed],
        journal: Journal | JournalError,
        telling: Telling,
        turns: Turns,
        watching: Watching | None,
        greet_again: Callable[[], None],
    ) -> None:
        self._home = home
        self._believed = believed
        self._journal = journal
        self._telling = telling
        self._stopping = False
        self._stored = Stored(home, journal, telling)
        self._recurring: Recurring | None = None
        self._carries: Carrying | None = None
        if isinstance(journal, Journal):
            self._recurring = Recurring(home, believed, journal)
            executor = Executor(home, believed().identity, watching)
            self._carries = Carrying(
                home, believed, journal, self._stored, turns, executor, self._recurring, greet_again
            )
        make_private_directory(home.output)

    @property
    def problem(self) -> JournalError | None:
        """Why nothing is executed; None when all is well."""
        journal = self._journal
        return journal if isinstance(journal, JournalError) else journal.problem

    @property
    def latest_seen(self) -> datetime:
        """The latest time that was believed."""
        assert isinstance(self._journal, Journal)
        return self._journal.latest_seen

    def running(self) -> Sequence[TaskId]:
        """Tasks that were taken in and have not ended, waiting ones included."""
        return () if self._carries is None else tuple(self._carries.running)

    def saw(self, at: datetime) -> None:
        """Remember a time that was believed."""
        if self.problem is None:
            assert isinstance(self._journal, Journal)
            try:
                self._journal.saw(at)
            except JournalError as error:
                log.warning("journal_not_written", reason=str(error))

    def revoked(self, data: bytes) -> str:
        """Take a list of revoked operators; why not, or empty when all is well."""
        return revocations_refused(self._home, self._believed().root, data)

    def ruled(self, data: bytes) -> str:
        """Take a policy of the tenant; why not, or empty when all is well."""
        known = self._believed()
        return policy_refused(self._home, known.root, known.identity.tenant, data)

    def settle(self) -> None:
        """Go on where an earlier agent stopped: every order that it took gets its outcome."""
        remove_scripts(self._home)
        if isinstance(self._journal, JournalError):
            return
        wanted = set()
        for entry in self._journal.entries():
            wanted.add(entry.task)
            self._stored.tell_run(entry)
            match entry.state:
                case State.ACKNOWLEDGED:
                    wanted.discard(entry.task)
                case State.ENDED:
                    self._stored.tell_output(entry)
                    self._stored.tell_end(entry)
                case State.ACCEPTED | State.STARTED:
                    self._resume(self._journal, entry)
        for path in self._home.output.iterdir():
            if path.name not in wanted:
                with suppress(OSError):  # what somebody else put there keeps nobody from starting
                    path.unlink()
        if self.problem is None:
            remove_records(self._home)

    def _resume(self, journal: Journal, entry: Entry) -> None:
        ended = end_marked(entry.task)
        if ended:
            log.warning("leftover_programs_ended", task=entry.task, count=ended)
        if entry.state is State.ACCEPTED or entry.repeatable:
            try:
                if entry.run is not None:
                    due = self._runs.again(entry.run)
                    self._carrying.begin(due.order, due.envelope, entry.task)
                else:
                    verified = verify_standing(journal.envelope_of(entry), self._believed())
                    self._carrying.begin(verified.order, verified.envelope, entry.task)
            except SteadError as error:
                self._carrying.keep_end(entry.order, rejected(entry.task, error, clock.now()))
            return
        self._stored.tell_output(entry)
        self._carrying.keep_end(entry.order, interrupted(self._home, entry, clock.now()))

    def offered(self, task: TaskId, envelope: bytes) -> None:
        """Decide what becomes of a task on offer. Whatever goes wrong is its outcome."""
        now = clock.now()
        try:
            check_id("ts", task)
        except InvalidError:
            log.warning("offer_ignored", reason="its task id is none")
            return
        problem = self.problem
        if problem is not None:
            self._telling.rejected(cannot_tell(task, problem))
            return
        assert isinstance(self._journal, Journal)
        known = self._journal.of_task(task)
        if known is not None:
            self._offered_again(known)
            return
        if self._stopping:
            return
        try:
            verified = self._verified(self._journal, envelope, now)
        except SteadError as error:
            self._reject(task, error, now)
            return
        except Exception as error:  # noqa: BLE001 - one order must not end the link for all
            self._reject(task, SteadError(f"the agent failed over this order: {error!r}"), now)
            return
        try:
            self._journal.accept(verified.order, task, verified.envelope)
        except SteadError as error:
            self._reject(task, error, now)
            return
        log.info(
            "order_accepted",
            task=task,
            order=verified.order.id,
            action=name_of(verified.order.action),
            operator=verified.signer,
        )
        self._carrying.begin(verified.order, verified.envelope, task)

    def _verified(self, journal: Journal, envelope: bytes, now: datetime) -> Verified:
        def executed_as(order: OrderId) -> TaskId | None:
            entry = journal.of_order(order)
            return None if entry is None else entry.task

        take_what_came_along(self._home, self._believed(), decode_envelope(envelope))
        verified = verify(
            envelope,
            self._believed(),
            now=now,
            latest_seen=journal.latest_seen,
            executed_as=executed_as,
        )
        # What an operator signed is later than when it was signed, whatever the clock says.
        journal.saw(verified.order.issued_at)
        return verified

    def _reject(self, task: TaskId, error: SteadError, now: datetime) -> None:
        if self.problem is not None:
            # It may stand in the journal or not: the next start decides, and tells.
            log.warning("journal_failed", task=task, reason=str(error))
            return
        log.warning("order_rejected", task=task, code=error.code, reason=str(error))
        self._telling.rejected(rejected(task, error, now))

    def _offered_again(self, entry: Entry) -> None:
        if entry.state in (State.ENDED, State.ACKNOWLEDGED):
            self._stored.tell_end(entry)

    def acknowledged(self, task: TaskId) -> None:
        """The controller has a task's outcome."""
        if self.problem is not None:
            return
        assert isinstance(self._journal, Journal)
        entry = self._journal.of_task(task)
        if entry is None or entry.state not in (State.ENDED, State.ACKNOWLEDGED):
            return
        self._stored.forget(task)
        if entry.state is State.ENDED:
            try:
                self._journal.acknowledge(entry.order)
            except JournalError as error:
                log.warning("journal_not_written", reason=str(error))
        self._carrying.told(task)

    @property
    def _carrying(self) -> Carrying:
        assert self._carries is not None
        return self._carries

    @property
    def _runs(self) -> Recurring:
        assert self._recurring is not None
        return self._recurring

    def run_due(self) -> None:
        """Begin the runs of standing orders that are due; each is noted before it begins."""
        if self.problem is not None or self._stopping:
            return
        for due in self._runs.due():
            try:
                self._run(due)
            except JournalError as error:
                log.warning("run_not_begun", order=due.run.order, reason=str(error))
                return

    def _run(self, due: Due) -> None:
        assert isinstance(self._journal, Journal)
        # Drawn, so that no controller can have given it to another task before.
        task = TaskId(clock.new_id("ts"))
        for gone in self._journal.accept_run(due.order, task, due.run, due.standing.ends_at):
            self._stored.forget(gone)
        self._telling.run(task, due.run, due.next_at)
        if due.refused is not None:
            self._carrying.keep_end(due.order.id, rejected(task, due.refused, clock.now()))
            return
        log.info("run_accepted", task=task, order=due.run.order, number=due.run.number)
        self._carrying.begin(due.order, due.envelope, task)

    async def stop(self, patience: timedelta) -> None:
        """Take no more tasks, and give those that run a moment to end.

        What does not end is killed and settled at the next start.
        """
        self._stopping = True
        if self._carries is not None:
            await self._carries.stop(patience)

    def prune(self) -> int:
        """Forget orders that can matter no more; returns how many."""
        if self.problem is not None:
            return 0
        assert isinstance(self._journal, Journal)
        return self._journal.prune(clock.now())
