"""The one thread that writes: many callers' acts in one durable transaction.

While one commit waits for the disk, the next callers queue up; they share the next
transaction, each inside its own savepoint. So a commit costs one fsync however many
wait for it, and a caller who fails takes nobody with him.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from controller.db.errors import DatabaseClosedError, DatabaseDamagedError
from controller.db.sqlite import FATAL, PRIMARY, full, is_full

T = TypeVar("T")
_LARGEST_BATCH = 256


@dataclass(slots=True)
class _Act:
    fn: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: BaseException | None = None


class _TransactionLostError(Exception):
    """SQLite gave the whole transaction up, not only the statement that failed."""


class Writer:
    """Runs acts one after the other on one connection; see the module."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._name = name
        self._engine = engine
        self._acts: queue.SimpleQueue[_Act | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._closed = False
        self._broken: str | None = None
        # A daemon: a program that fails without closing must end, and loses no promise by it.
        self._thread = threading.Thread(target=self._serve, name="database-writer", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> bool:
        """The disk failed under a transaction: what the file holds is not certain."""
        return self._broken is not None

    def submit(self, fn: Callable[[Connection], T]) -> Future[T]:
        """Queue an act. Its future has the result once the transaction is on the disk."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("an act must not wait for another act: call its function instead")
        act = _Act(fn)
        with self._door:
            if self._closed:
                raise DatabaseClosedError("the controller is stopping; try again in a moment")
            self._acts.put(act)
        return act.future

    def close(self) -> None:
        """Finish what is queued, refuse what comes later, end the thread."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._acts.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with self._engine.connect() as connection:
            while True:
                batch, last = self._next_batch()
                if batch:
                    self._run(connection, batch)
                if last:
                    return

    def _next_batch(self) -> tuple[list[_Act], bool]:
        batch: list[_Act] = []
        try:
            while len(batch) < _LARGEST_BATCH:
                act = self._acts.get(block=not batch)
                if act is None:
                    return batch, True
                if act.future.set_running_or_notify_cancel():
                    batch.append(act)
        except queue.Empty:
            return batch, False
        return batch, False

    def _run(self, connection: Connection, batch: list[_Act]) -> None:
        """Run and settle one transaction; nobody hears of success before the commit."""
        lost: BaseException | None = (
            DatabaseDamagedError(self._broken) if self._broken is not None else None
        )
        if lost is None:
            lost = self._transact(connection, batch)
        for act in batch:
            error = act.error or lost
            if error is None:
                act.future.set_result(act.result)
            else:
                act.future.set_exception(self._named(error))

    def _transact(self, connection: Connection, batch: list[_Act]) -> BaseException | None:
        """Run the acts and commit; the reason when nothing of them was kept."""
        try:
            with connection.begin():
                raw = connection.connection.driver_connection
                assert isinstance(raw, sqlite3.Connection)
                for act in batch:
                    _attempt(connection, raw, act)
        except _TransactionLostError as error:
            return error.__cause__
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            return error
        return None

    def _named(self, error: BaseException) -> BaseException:
        """The error that the caller sees: disk troubles get their own classes.

        After a failed read or fsync nothing on this connection is trusted any more:
        what the kernel could not write it may have forgotten, so a second try would
        succeed without having written anything.
        """
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None:
            return error
        if is_full(code):
            named: Exception = full(self._name)
        elif code & PRIMARY in FATAL:
            self._broken = (
                f"the disk under {self._name} failed ({cause}); check the disk, then restart "
                "the controller"
            )
            named = DatabaseDamagedError(self._broken)
        else:
            return error
        named.__cause__ = error
        return named


def _attempt(connection: Connection, raw: sqlite3.Connection, act: _Act) -> None:
    """Run one act in its savepoint and keep how it went."""
    raw.execute("SAVEPOINT act")
    try:
        act.result = act.fn(connection)
    except BaseException as error:
        act.error = error
        if not raw.in_transaction:
            raise _TransactionLostError from error
        raw.execute("ROLLBACK TO act")
    if not raw.in_transaction:
        act.error = RuntimeError("an act must leave commit and rollback to the writer")
        raise _TransactionLostError from act.error
    raw.execute("RELEASE act")
