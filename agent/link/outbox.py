"""What waits to be told to the controller, in the order of its importance.

Signs of life first, then beginnings and outcomes, then output; one message at a time,
so that no amount of output keeps an outcome or a heartbeat waiting. Nothing is kept
here that is not kept elsewhere too: outcomes are in the journal, output is in spools.
Both are told again on every new connection until the outcome is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from agent.host.spool import Spool
from protocol.checkpoint import to_us
from protocol.codec import outcome_to_pb, to_ms
from protocol.ids import TaskId
from protocol.outcome import Outcome
from protocol.standing import Run
from protocol.v1 import link_pb2
from protocol.witness import Watched

MAX_WAITING = 256
"""How many refusals may wait before no more offers are read."""


@dataclass(slots=True)
class _Line:
    """One task's part of what is to be told."""

    started_at: datetime | None = None
    started_told: bool = False
    spool: Spool | None = None
    position: int = 0
    sequence: int = 0
    outcome: Callable[[], Outcome] | None = None
    outcome_told: bool = False
    told_again: bool = False
    run: link_pb2.StandingRun | None = None


class Outbox:
    """See the module. For one event loop; `take` gives the next message.

    `tells_runs`: the controller knows what a run of a standing order is.
    """

    def __init__(self) -> None:
        self.tells_runs = True
        self._urgent: deque[link_pb2.ConnectRequest] = deque()
        self._lines: dict[TaskId, _Line] = {}
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def heartbeat(self, message: link_pb2.Heartbeat) -> None:
        """A sign of life."""
        self._put(link_pb2.ConnectRequest(heartbeat=message))

    def witnessed(self, watched: Watched) -> None:
        """What this machine keeps of the audit logs, and what it found wrong with them."""
        message = link_pb2.Witnessed(
            logs=[
                link_pb2.WitnessedLog(tenant_id=log, size=size)
                for log, size in watched.sizes().items()
            ],
            alarms=[
                link_pb2.WitnessAlarm(tenant_id=log, found=alarm.found, at_us=to_us(alarm.at))
                for log, alarm in watched.each_alarm()
            ],
        )
        self._put(link_pb2.ConnectRequest(witnessed=message))

    def rejected(self, outcome: Outcome) -> None:
        """A task that never was: told once, since the controller offers it again if need be."""
        self._put(link_pb2.ConnectRequest(task_outcome=outcome_to_pb(outcome)))

    def _put(self, message: link_pb2.ConnectRequest) -> None:
        self._urgent.append(message)
        if len(self._urgent) >= MAX_WAITING:
            self._room.clear()
        self._ready.set()

    async def room(self) -> None:
        """Wait while too much is waiting to be told."""
        await self._room.wait()

    def started(self, task: TaskId, at: datetime, spool: Spool) -> None:
        """A task's execution begins, and prints into a spool."""
        line = self._lines.setdefault(task, _Line())
        line.started_at, line.spool = at, spool
        self._ready.set()

    def run(self, task: TaskId, run: Run, next_at: datetime | None) -> None:
        """A task is a run of a standing order, which the controller has not heard of."""
        line = self._lines.setdefault(task, _Line())
        line.run = link_pb2.StandingRun(
            order_id=run.order,
            slot_ms=to_ms(run.slot),
            number=run.number,
            next_at_ms=to_ms(next_at),
        )

    def printed(self) -> None:
        """There may be more in some spool."""
        self._ready.set()

    def ended(self, task: TaskId, outcome: Callable[[], Outcome]) -> None:
        """A task's outcome is durable; `outcome` reads it."""
        line = self._lines.setdefault(task, _Line())
        line.outcome, line.outcome_told = outcome, False
        self._ready.set()

    def acknowledged(self, task: TaskId) -> Spool | None:
        """Forget a task, and give back its spool."""
        line = self._lines.pop(task, None)
        return None if line is None else line.spool

    def begin_anew(self) -> None:
        """A new connection: everything that was not acknowledged is told again."""
        self._urgent.clear()
        self._room.set()
        for line in self._lines.values():
            line.started_told = line.outcome_told = line.told_again = False
            line.position = line.sequence = 0
        self._ready.set()

    def tell_again(self) -> None:
        """Repeat outcomes that were told a while ago and are not acknowledged."""
        for line in self._lines.values():
            if line.outcome_told:
                line.outcome_told = not line.told_again
                line.told_again = not line.told_again
        self._ready.set()

    async def next(self) -> link_pb2.ConnectRequest:
        """The next message, as soon as there is one."""
        while True:
            message = self.take()
            if message is not None:
                return message
            self._ready.clear()
            await self._ready.wait()

    def take(self) -> link_pb2.ConnectRequest | None:
        """The next message, if there is one."""
        if self._urgent:
            message = self._urgent.popleft()
            if len(self._urgent) < MAX_WAITING // 2:
                self._room.set()
            return message
        lines = [
            (task, line) for task, line in self._lines.items() if self.tells_runs or not line.run
        ]
        for task, line in lines:
            if (told := _control(task, line)) is not None:
                return told
        for task, line in lines:
            if (piece := _piece(task, line)) is not None:
                # The next piece is another task's, if another one has something to say.
                self._lines[task] = self._lines.pop(task)
                return piece
        return None


def _control(task: TaskId, line: _Line) -> link_pb2.ConnectRequest | None:
    # A run that never began is told as well, once it has an outcome: nobody knows its task.
    begun_or_over = line.started_at is not None or (line.run and line.outcome)
    if begun_or_over and not line.started_told:
        line.started_told = True
        begun = link_pb2.TaskStarted(
            task_id=task, started_at_ms=to_ms(line.started_at), run=line.run
        )
        return link_pb2.ConnectRequest(task_started=begun)
    if line.outcome is not None and not line.outcome_told and _printed_all(line):
        line.outcome_told = True
        return link_pb2.ConnectRequest(task_outcome=outcome_to_pb(line.outcome()))
    return None


def _printed_all(line: _Line) -> bool:
    # Asked by reading: output that was damaged on the disk must not keep the outcome waiting.
    return line.spool is None or line.spool.piece_at(line.position) is None


def _piece(task: TaskId, line: _Line) -> link_pb2.ConnectRequest | None:
    piece = line.spool.piece_at(line.position) if line.spool is not None else None
    if piece is None:
        return None
    output = link_pb2.TaskOutput(
        task_id=task,
        sequence=line.sequence,
        stream=link_pb2.OutputStream.Name(piece.printed),  # type: ignore[arg-type]
        data=piece.data,
    )
    line.position, line.sequence = piece.next, line.sequence + 1
    return link_pb2.ConnectRequest(task_output=output)
