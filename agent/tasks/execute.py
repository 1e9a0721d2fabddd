"""Execute one task: one child process group, ended when its time is up.

A program or a script is started as it is; every other action runs in a worker. What they print
goes to the spool as it comes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from agent.actions.action import ActionResult
from agent.actions.power import tell_cancelled
from agent.actions.program import checked_program, outcome_of_program, over_memory
from agent.actions.script import laid_out
from agent.config import AgentHome
from agent.host import log
from agent.host.group import ended_for_memory
from agent.host.installed import Installed
from agent.host.marked import end_marked
from agent.host.process import KILLED_WITHIN_S, ProgramError, started
from agent.host.spool import Printed, Spool
from agent.tasks.after import run_after
from agent.tasks.under_way import Noted, noted
from agent.tasks.watching import Watching
from agent.tasks.worker import (
    Answer,
    encode_cancel,
    encode_request,
    ended_by,
    worker_argv,
    worker_environment,
)
from protocol.action import (
    Action,
    ApplyUpdates,
    CancelOrder,
    CollectInventory,
    ControlPower,
    KillProcess,
    ListProcesses,
    ListServices,
    PlanUpdates,
    PutFile,
    ReadLog,
    RunBackup,
    RunDrill,
    RunProgram,
    RunScript,
    ScanUpdates,
    TakeSnapshot,
    name_of,
)
from protocol.errors import UNREADABLE, Code, SteadError
from protocol.identity import MachineIdentity
from protocol.ids import TaskId
from protocol.outcome import Outcome, OutcomeState

AT_ONCE = 4
WAITING_AT_ONCE = 16
"""Of those that mostly wait; they must not keep others from their turn."""
REPLACED_LOOK_S = 1.0
EXCLUSIVE: Mapping[type[Action], str] = {
    ScanUpdates: "packages",
    PlanUpdates: "packages",
    ApplyUpdates: "packages",
    RunBackup: "backup",
    RunDrill: "drill",
    ControlPower: "power",
}
"""Kinds of work of which a machine does one at a time."""
SHORT: tuple[type[Action], ...] = (
    CollectInventory,
    TakeSnapshot,
    ListServices,
    ListProcesses,
    KillProcess,
    ReadLog,
)
"""What shows and ends what hangs: it must not wait for that."""


@dataclass(slots=True)
class Turns:
    """Who may work now: a few tasks at once, and one of each exclusive kind.

    What mostly waits, and what is over soon, have places of their own. Nothing begins while the
    agent's files are others than those it was started from: its workers would be, too.
    """

    installed: Installed | None = None
    working: int = 0
    """How many have their turn."""
    _any: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _short: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _waiting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WAITING_AT_ONCE))
    _kinds: dict[str, asyncio.Lock] = field(default_factory=dict)

    @asynccontextmanager
    async def turn(self, action: Action) -> AsyncIterator[None]:
        """Wait until this action may run, and keep others out as long as it does."""
        if isinstance(action, CancelOrder):
            # What it is to end may be what it would wait for.
            yield
            return
        async with AsyncExitStack() as stack:
            kind = EXCLUSIVE.get(type(action))
            if kind is not None:
                # First, so that a second backup in line does not take one of the few places.
                await stack.enter_async_context(self._kinds.setdefault(kind, asyncio.Lock()))
            await stack.enter_async_context(self._places(action))
            await self._until_own()
            self.working += 1
            try:
                yield
            finally:
                self.working -= 1

    async def _until_own(self) -> None:
        """Wait for ever when the agent was replaced: it begins anew, with what waits here."""
        while True:
            if self.installed is None or not self.installed.is_replaced():
                return
            await asyncio.sleep(REPLACED_LOOK_S)

    def _places(self, action: Action) -> asyncio.Semaphore:
        if _waits(action):
            return self._waiting
        return self._short if isinstance(action, SHORT) else self._any


def _waits(action: Action) -> bool:
    """Whether an action mostly waits."""
    return isinstance(action, ControlPower) or (isinstance(action, ReadLog) and action.follow)


@dataclass(frozen=True, slots=True)
class Executor:
    """Executes tasks as this machine. `watching` tells backups what has changed."""

    home: AgentHome
    identity: MachineIdentity
    watching: Watching | None = None

    async def execute(
        self,
        task: TaskId,
        action: Action,
        *,
        limit: timedelta,
        spool: Spool,
        cancelled: asyncio.Future[str] | None = None,
    ) -> Outcome:
        """Run an action to its end, and say how it ended; times are the caller's to add.

        It ends early when `cancelled` says by whom.

        The answer to whatever goes wrong is an outcome.
        """
        off = cancelled or asyncio.get_running_loop().create_future()
        try:
            with noted(self.home, task, name_of(action)) as note:
                if isinstance(action, RunProgram):
                    return await self._program(task, action, limit, spool, off)
                if isinstance(action, RunScript):
                    with laid_out(self.home, task, action) as program:
                        return await self._program(task, program, limit, spool, off)
                outcome = await self._worker(task, action, limit, spool, off, note)
        except SteadError as error:
            outcome = Outcome(task, OutcomeState.FAILED, code=error.code, message=str(error))
        # Not by the worker, which is gone.
        if isinstance(action, ControlPower) and outcome.state is OutcomeState.CANCELLED:
            await _tell_cancelled()
        if isinstance(action, PutFile) and _was_ended(outcome):
            await _remove_part(self.home, task, action)
        if isinstance(action, RunBackup):
            # Not by the worker, which may have been killed for taking too long.
            return await run_after(self.home, task, action, outcome, spool)
        return outcome

    async def _program(
        self,
        task: TaskId,
        action: RunProgram,
        limit: timedelta,
        spool: Spool,
        off: asyncio.Future[str],
    ) -> Outcome:
        program = checked_program(action)

        def keep(fd: int, data: bytes) -> None:
            spool.append(Printed(fd), data)

        async with started(
            program.argv,
            on_output=keep,
            env=program.environment,
            cwd=program.directory,
            task=task,
            limits=program.limits,
        ) as child:
            child.give(program.stdin, end=True)
            code = await child.ended(limit, off)
            if code is None:
                end_marked(task)
                if off.done():
                    by = ended_by(off.result())
                    outcome = Outcome(task, OutcomeState.CANCELLED, message=by)
                else:
                    outcome = _late(task, limit)
            elif program.limits.memory_bytes and ended_for_memory(task):
                end_marked(task)
                outcome = over_memory(task, program.limits)
            else:
                outcome = outcome_of_program(task, code)
        # Never silently: who sets a limit counts on it.
        words = filter(None, (outcome.message, *child.missed))
        return dataclasses.replace(outcome, message="; ".join(words))

    async def _worker(
        self,
        task: TaskId,
        action: Action,
        limit: timedelta,
        spool: Spool,
        off: asyncio.Future[str],
        note: Noted,
    ) -> Outcome:
        if self.watching is None:
            return await self._at_work(task, action, limit, spool, off, note, "")
        async with self.watching.handed_over(task, action) as handed:
            return await self._at_work(task, action, limit, spool, off, note, handed)

    async def _at_work(
        self,
        task: TaskId,
        action: Action,
        limit: timedelta,
        spool: Spool,
        off: asyncio.Future[str],
        note: Noted,
        handed: str,
    ) -> Outcome:
        answers = _Answers(spool, note)
        identity = self.identity
        request = encode_request(
            self.home, identity.tenant, identity.machine, task, action, handed=handed
        )

        def keep(fd: int, data: bytes) -> None:
            if fd == Printed.STDOUT:
                answers.feed(data)
            else:
                spool.append(Printed.STDERR, data)

        async with started(
            worker_argv(), on_output=keep, env=worker_environment(), task=task
        ) as child:
            child.give(request, end=False)

            def tell(by: asyncio.Future[str]) -> None:
                # Not killed: the worker knows whether its work is past the point of return.
                if not child.exited.done() and not by.cancelled():
                    child.give(encode_cancel(by.result()), end=False)

            off.add_done_callback(tell)
            try:
                code = await child.ended(limit)
            finally:
                off.remove_done_callback(tell)
            if code is None:
                end_marked(task)
                return _late(task, limit)
        result = answers.result
        if result is None:
            if not isinstance(action, ApplyUpdates):
                # What it had begun has nobody any more; an installation alone is not cut short.
                end_marked(task)
            raise ProgramError(
                f"the worker ended with {code} and without a result; its last words are in "
                "the task's output",
                code=Code.INTERNAL,
            )
        return Outcome(
            task, result.state, code=result.code, message=result.message, result=result.result
        )


def _late(task: TaskId, limit: timedelta) -> Outcome:
    return Outcome(
        task,
        OutcomeState.TIMED_OUT,
        code=Code.TIMED_OUT,
        message=f"ended after {limit.total_seconds():g} s, the order's time for execution",
    )


def _was_ended(outcome: Outcome) -> bool:
    """Whether a worker was ended before it could clear up."""
    ended = outcome.state in (OutcomeState.TIMED_OUT, OutcomeState.CANCELLED)
    return ended or outcome.code == Code.INTERNAL


async def _remove_part(home: AgentHome, task: TaskId, action: PutFile) -> None:
    from agent.files.part import remove_part

    removing = asyncio.create_task(asyncio.to_thread(remove_part, action.path, home.path, task))
    # Not for ever: what hangs on a dead file server hung the worker, too.
    await asyncio.wait({removing}, timeout=KILLED_WITHIN_S)


async def _tell_cancelled() -> None:
    try:
        await asyncio.to_thread(tell_cancelled)
    except SteadError as error:
        log.warning("nobody_told", reason=str(error))


class _Answers:
    """Reads the lines that a worker prints."""

    def __init__(self, spool: Spool, note: Noted) -> None:
        self._note = note
        self._rest = bytearray()
        self._spool = spool
        self.result: ActionResult | None = None

    def feed(self, data: bytes) -> None:
        self._rest += data
        if b"\n" not in data:
            return
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            try:
                answer = msgspec.json.decode(line, type=Answer)
            except UNREADABLE:
                self._spool.append(Printed.STDERR, bytes(line) + b"\n")
                continue
            if answer.progress is not None:
                self._spool.append(Printed.PROGRESS, msgspec.json.encode(answer.progress))
                self._note.heard(answer.progress)
            if answer.printed is not None:
                self._spool.append(Printed.STDOUT, answer.printed)
            if answer.result is not None:
                self.result = answer.result
