"""The controller's database: acts that are durable when they return, and reads.

    async def retire(db: Database, machine: MachineId) -> None:
        def act(connection: Connection) -> None:
            connection.execute(update(machines).where(...).values(...))
            append(connection, ...)          # the audit entry of the same act
        await db.write(act)

An act is a plain function of a connection. It does all its work before it returns,
never commits, gives plain values back (rows fetched, not cursors), and is short: all
writers wait for it. What belongs together goes into one act.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from controller.db import sqlite
from controller.db.errors import DatabaseMissingError, DatabaseVersionError
from controller.db.migrate import check_version, schema_version, upgrade
from controller.db.sums import take_sums, write_sums
from controller.db.writer import Writer
from protocol.errors import InvalidError

T = TypeVar("T")
READERS = 2


class Database:
    """An open database; make one with `Database.open`."""

    def __init__(self, writing: Engine, reading: Engine, readers: int, path: Path, lock: int):
        self._path = path
        self._writing = writing
        self._reading = reading
        self._lock = lock
        self._writer = Writer(writing, str(path))
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="database-reader")
        self._closed = False

    @classmethod
    def open(
        cls,
        url: str,
        *,
        create: bool = False,
        migrate: bool = False,
        check: bool = True,
        readers: int = READERS,
    ) -> Database:
        """Open `sqlite:////absolute/path`, check that it is sound and has the right schema.

        `create` makes the file and its tables where there are none; without it a missing
        database is an error, never a new, empty one. `migrate` brings an older schema up
        to date; without it an older one is refused. `check` reads the whole file once.

        Raises `DatabaseLockedError`, `DatabaseMissingError`, `DatabaseDamagedError`,
        `DatabaseVersionError`, and `InvalidError` for a URL that names no SQLite file.
        """
        path = _sqlite_path(url)
        if create:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            sqlite.require_file(path)
        lock = sqlite.lock(path)
        try:
            if create:
                sqlite.make_file(path)
            take_sums(path)
            writing = sqlite.writer_engine(path, check=check)
            try:
                with writing.begin() as connection:
                    _settle_schema(connection, path, create=create, migrate=migrate)
            except BaseException:
                writing.dispose()
                raise
        except BaseException:
            os.close(lock)
            raise
        return cls(writing, sqlite.reader_engine(path, size=readers), readers, path, lock)

    @property
    def folder(self) -> Path:
        """Where its file lies."""
        return self._path.parent

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run an act; when this returns, it is on the disk.

        What the act raises is raised here and undoes this act alone. When the
        transaction itself fails, every act in it fails: `DatabaseFullError`,
        `DatabaseDamagedError`. A caller who is cancelled while the act is under way
        does not learn whether it was recorded.
        """
        return await asyncio.wrap_future(self._writer.submit(fn))

    def write_now(self, fn: Callable[[Connection], T]) -> T:
        """`write` for those without an event loop; blocks the thread."""
        return self._writer.submit(fn).result()

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run a query in a reader's thread; it sees every act that returned before this call."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.read_now, fn)

    def read_now(self, fn: Callable[[Connection], T]) -> T:
        """`read` in the caller's own thread.

        Raises `DatabaseDamagedError` when the disk under the file fails, and what `fn` does.
        """
        try:
            with self._reading.connect() as connection:
                return fn(connection)
        except DBAPIError as error:
            raise sqlite.named(self._path, error) from error

    async def close(self) -> None:
        """Finish what is queued, then close; later acts get `DatabaseClosedError`."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """`close` for those without an event loop."""
        if self._closed:
            return
        self._closed = True
        self._pool.shutdown()
        # The last connection to close checkpoints, and that must be the writer.
        self._reading.dispose()
        self._writer.close()
        self._writing.dispose()
        if not self._writer.broken:
            write_sums(self._path)
        os.close(self._lock)


def _settle_schema(connection: Connection, path: Path, *, create: bool, migrate: bool) -> None:
    found = schema_version(connection)
    if check_version(found):
        return
    if found is None and not create:
        raise DatabaseMissingError(
            f"{path} holds no tables; restore it from a backup of the controller"
        )
    if found is not None and not migrate:
        raise DatabaseVersionError(
            f"{path} has the older schema {found}; run `stead controller upgrade-db`"
        )
    upgrade(connection)


def _sqlite_path(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if (
        parsed is None
        or parsed.get_backend_name() != "sqlite"
        or parsed.database in (None, "", ":memory:")
    ):
        raise InvalidError(f"{url.partition('://')[0]!r} is no database: use sqlite:////path/file")
    return Path(str(parsed.database)).absolute()
