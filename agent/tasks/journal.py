"""The journal of orders: what makes a machine execute each at most once.

An append-only file of the records in `agent.tasks.record`. A record is durable before
what it announces begins, so an order that was begun is known after any crash. A last
line that was cut short announces nothing that began and is dropped; any other damage
means that nobody can tell what was executed, and the journal then refuses everything.

What is kept in memory of an order is where its records lie, not the records.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from agent.host.descriptor import OURS, pread, sync
from agent.host.files import write_atomically
from agent.tasks.entry import Entry, JournalError, State
from agent.tasks.record import (
    Accepted,
    Acknowledged,
    Ended,
    Line,
    Opened,
    Seen,
    Started,
    decode_line,
    encode_line,
    is_cut_short,
)
from agent.tasks.runs import Runs
from agent.tasks.untold import Untold, one_run, summed
from protocol.codec import decode_envelope, encode_envelope, from_ms, to_ms
from protocol.errors import Code, SteadError
from protocol.ids import OrderId, TaskId
from protocol.order import Envelope, Order
from protocol.outcome import Outcome
from protocol.standing import Run

KEPT = timedelta(days=30)
"""How long after its last time for delivery an order is remembered."""

SEEN_STEP = timedelta(minutes=10)
"""The latest time that was believed is kept this exactly."""


def new_journal() -> bytes:
    """The content of a journal in which nothing has happened."""
    return encode_line(Opened())


_CLOSED = -1


class Journal:
    """See the module. One process at a time; not safe for threads."""

    def __init__(self, path: Path, *, step: Callable[[str], None] = lambda _: None) -> None:
        """Read the journal; `JournalError` when it is missing or damaged.

        `step` is told the name of every step just after it, for tests that stop there.
        """
        self._path = path
        self._step = step
        self._entries: dict[OrderId, Entry] = {}
        self._tasks: dict[TaskId, OrderId] = {}
        self._runs = Runs()
        self._broken: str | None = None
        self.latest_seen = from_ms(0)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | OURS)
        except OSError as error:
            raise JournalError(
                f"the journal {path} cannot be opened ({error.strerror}), so nobody can tell "
                "which orders were executed; nothing will be. Put it back, or run "
                "`stead-agent enroll --force` to begin as a new machine"
            ) from error
        try:
            self._size = self._read()
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._file != _CLOSED:
            os.close(self._file)
        self._file = _CLOSED

    def _read(self) -> int:
        offset = 0
        with self._path.open("rb") as file:
            for line in file:
                try:
                    record = decode_line(line)
                except (ValueError, msgspec.DecodeError) as error:
                    rest = file.read(1)
                    if not rest and offset and is_cut_short(line):
                        os.ftruncate(self._file, offset)
                        sync(self._file)
                        return offset
                    raise self._damaged(offset, str(error)) from error
                if not isinstance(record, Opened) and not offset:
                    raise self._damaged(offset, "it does not begin as a journal does")
                self._apply(record, (offset, len(line)))
                offset += len(line)
        if not offset:
            raise self._damaged(offset, "it is empty")
        return offset

    def _damaged(self, offset: int, why: str) -> JournalError:
        return JournalError(
            f"the journal {self._path} is damaged at byte {offset} ({why}), so nobody can tell "
            "which orders were executed; nothing will be. Keep a copy, then run "
            "`stead-agent enroll --force` to begin as a new machine"
        )

    def _apply(self, record: Line, place: tuple[int, int]) -> None:
        match record:
            case Accepted():
                entry = Entry(
                    OrderId(record.order),
                    TaskId(record.task),
                    from_ms(record.deliver_by_ms),
                    record.repeatable,
                    State.ACCEPTED,
                    place,
                )
                if record.standing:
                    self._apply_run(record, entry)
                self._entries[entry.order] = entry
                self._tasks[entry.task] = entry.order
            case Started():
                entry = self._of(record.order, place)
                entry.state, entry.started_at = State.STARTED, from_ms(record.at_ms)
            case Ended():
                entry = self._of(record.order, place)
                entry.state, entry.outcome_place = State.ENDED, place
                self._runs.ended(entry, place[1])
            case Acknowledged():
                entry = self._of(record.order, place)
                entry.state = State.ACKNOWLEDGED
                self._runs.heard(entry)
            case Seen():
                self.latest_seen = max(self.latest_seen, from_ms(record.at_ms))
            case Opened():
                if record.revision != 1:
                    raise self._damaged(place[0], "it was written by a later release")

    def _apply_run(self, record: Accepted, entry: Entry) -> None:
        """Take in that a run was accepted, and forget those that it sums up."""
        for name in record.sums_up:
            gone = self._entries.pop(OrderId(name), None)
            if gone is not None:
                del self._tasks[gone.task]
                self._runs.heard(gone)
        entry.run = Run(OrderId(record.standing), from_ms(record.slot_ms), record.number)
        entry.untold = record.untold
        self._runs.accepted(entry)

    def _of(self, order: str, place: tuple[int, int]) -> Entry:
        entry = self._entries.get(OrderId(order))
        if entry is None:
            raise self._damaged(place[0], "it speaks of an order that it does not have")
        return entry

    def _append(self, record: Line, *, durable: bool = True) -> None:
        """Write one record. When that fails the journal is as before, or refuses from then on."""
        self.check()
        line = encode_line(record)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._step("written")
        except OSError as error:
            self._take_back(error)
            raise JournalError(
                f"the journal {self._path} cannot be written ({error.strerror}); free some "
                "space, the order was not executed",
                code=Code.STORE_FULL,
            ) from error
        if durable:
            try:
                sync(self._file)
            except OSError as error:
                # What of it is on the disk is not known, not even after a second fsync.
                self._broken = f"fsync of {self._path} failed: {error.strerror}"
                raise JournalError(f"{self._broken}; look at the disk, then restart") from error
            self._step("synced")
        self._apply(record, (self._size, len(line)))
        self._size += len(line)

    def _take_back(self, cause: OSError) -> None:
        try:
            os.ftruncate(self._file, self._size)
            sync(self._file)
        except OSError:
            self._broken = f"writing {self._path} failed half way: {cause.strerror}"

    @property
    def problem(self) -> JournalError | None:
        """Why the journal can no longer be relied on; None when it can."""
        if not self._broken:
            return None
        return JournalError(f"{self._broken}; look at the disk, then restart the agent")

    def check(self) -> None:
        """Raise `JournalError` when the journal can no longer be relied on."""
        if (problem := self.problem) is not None:
            raise problem

    def of_task(self, task: TaskId) -> Entry | None:
        """The entry behind a task."""
        order = self._tasks.get(task)
        return None if order is None else self._entries[order]

    def of_order(self, order: OrderId) -> Entry | None:
        """The entry of an order."""
        return self._entries.get(order)

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first."""
        return iter(list(self._entries.values()))

    def accept(self, order: Order, task: TaskId, envelope: Envelope) -> None:
        """Promise to execute an order; durable on return."""
        self._append(
            Accepted(
                order.id,
                task,
                to_ms(order.deliver_by),
                order.repeatable,
                encode_envelope(envelope),
            )
        )

    def accept_run(self, order: Order, task: TaskId, run: Run, ends_at: datetime) -> list[TaskId]:
        """Promise to make a run of a standing order; durable on return.

        The tasks of the runs that this one sums up, which are forgotten; see
        `agent.tasks.untold`.
        """
        gone = [self._entries[one] for one in self._runs.to_sum_up(run.order)]
        self._append(
            Accepted(
                order.id,
                task,
                to_ms(ends_at),
                order.repeatable,
                standing=run.order,
                slot_ms=to_ms(run.slot),
                number=run.number,
                sums_up=tuple(entry.order for entry in gone),
                untold=summed(part for entry in gone for part in self._parts_of(entry)),
            )
        )
        return [entry.task for entry in gone]

    def _parts_of(self, entry: Entry) -> Iterator[Untold]:
        """A run that has ended, and what it would have told of others."""
        assert entry.run is not None
        yield one_run(self.outcome_of(entry).state, to_ms(entry.run.slot))
        if entry.untold is not None:
            yield entry.untold

    def last_run(self, order: OrderId) -> Entry | None:
        """The run of a standing order that was noted last."""
        return self._runs.last.get(order)

    def summed_until(self, order: OrderId) -> datetime | None:
        """The last slot of a standing order whose run is known in a sum alone."""
        return self._runs.summed_until.get(order)

    def start(self, order: OrderId, at: datetime) -> None:
        """Say that execution begins now; durable on return."""
        self._append(Started(order, to_ms(at)))

    def end(self, order: OrderId, outcome: Outcome) -> None:
        """Keep the outcome; durable on return."""
        self._append(Ended(order, outcome))

    def acknowledge(self, order: OrderId) -> None:
        """Note that the controller has the outcome. When that is lost, it is only told again."""
        self._append(Acknowledged(order), durable=False)

    def saw(self, at: datetime) -> None:
        """Remember a time that was believed, so that a clock set back revives no order."""
        if at >= self.latest_seen + SEEN_STEP:
            self._append(Seen(to_ms(at)))

    def past(self, now: datetime) -> datetime:
        """A time that has passed for certain: the clock's, or an earlier one that was believed."""
        return min(now, self.latest_seen)

    def outcome_of(self, entry: Entry) -> Outcome:
        """The stored outcome of an order that has ended."""
        assert entry.outcome_place is not None
        record = self._at(entry.outcome_place)
        assert isinstance(record, Ended)
        return record.outcome

    def envelope_of(self, entry: Entry) -> Envelope:
        """The envelope of an order that has not ended; that of a run is kept elsewhere."""
        record = self._at(entry.accepted_place)
        assert isinstance(record, Accepted)
        return decode_envelope(record.envelope)

    def _at(self, place: tuple[int, int]) -> Line:
        offset, length = place
        try:
            return decode_line(pread(self._file, length, offset))
        except (ValueError, msgspec.DecodeError) as error:
            damaged = self._damaged(offset, str(error))
            self._broken = f"the journal {self._path} was damaged while the agent ran"
            raise damaged from error

    def prune(self, now: datetime) -> int:
        """Forget what can matter no more, by writing the file anew; returns how many orders.

        An order goes when its outcome is acknowledged and its last time for delivery is
        `KEPT` ago: offered again, it is refused as expired. That is so by a time that was
        believed, since a clock that is ahead for a while comes back. See `Runs.is_over` for runs.
        """
        self.check()
        # Taken off here and not added there: an order may name the last day of all calendars.
        long_past = self.past(now) - KEPT
        gone = [
            entry.order
            for entry in self._entries.values()
            if entry.state is State.ACKNOWLEDGED
            and (long_past > entry.deliver_by or self._runs.is_over(entry, now, self.latest_seen))
        ]
        kept = [entry for entry in self._entries.values() if entry.order not in set(gone)]
        content = b"".join(self._lines(kept))
        if sys.platform == "win32":
            self.close()  # an open file cannot be replaced there
        try:
            write_atomically(self._path, content)
            self._step("replaced")
            replaced = os.open(self._path, os.O_RDWR | os.O_APPEND | OURS)
        except (OSError, SteadError) as error:
            if sys.platform == "win32":
                with suppress(OSError):
                    self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | OURS)
            self._check_in_place()
            raise JournalError(f"the journal {self._path} was not tidied: {error}") from error
        self.close()
        self._file = replaced
        self._entries, self._tasks, self._runs = {}, {}, Runs()
        try:
            self._size = self._read()
        except JournalError as error:
            self._broken = str(error)
            raise
        return len(gone)

    def _check_in_place(self) -> None:
        """Rely no more on a file that has lost its name: nobody will read what is written there."""
        try:
            same = os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            same = False
        if not same:
            self._broken = f"the journal {self._path} was replaced half way"

    def _lines(self, kept: list[Entry]) -> Iterator[bytes]:
        yield new_journal()
        yield encode_line(Seen(to_ms(self.latest_seen)))
        for entry in kept:
            accepted = self._at(entry.accepted_place)
            if entry.outcome_place is not None:
                accepted = msgspec.structs.replace(accepted, envelope=b"", sums_up=())
            yield encode_line(accepted)
            if entry.started_at is not None:
                yield encode_line(Started(entry.order, to_ms(entry.started_at)))
            if entry.outcome_place is not None:
                yield encode_line(self._at(entry.outcome_place))
            if entry.state is State.ACKNOWLEDGED:
                yield encode_line(Acknowledged(entry.order))
