"""One SQLite file: who may write to it, whether it is sound, how it is opened.

A single process holds the file for writing (flock on `<file>.lock`), and in it a
single connection writes and checkpoints. That keeps every SQLite release safe,
those between 3.7.0 and 3.51.2 included, in which two checkpointing connections can
reset the write-ahead log under each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from controller.db.errors import (
    DatabaseDamagedError,
    DatabaseFullError,
    DatabaseLockedError,
    DatabaseMissingError,
)

PRIMARY = 0xFF
"""These bits of SQLite's codes say what kind of error it is."""
FATAL = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""The file, or what was read of it, cannot be trusted."""
_BUSY_TIMEOUT_S = 5.0
_CHECKPOINT_PAGES = 4000
_KEPT_LOG_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 64 * 1024
_HIDDEN = True
"""An error's message goes into the log, and a statement's values may be secrets."""


def lock(path: Path) -> int:
    """Take the right to write to a database; the descriptor holds it until it is closed.

    Raises `DatabaseLockedError` naming the process that has it, and `DatabaseFullError`
    or `DatabaseDamagedError` when the disk does not take the name of this one.
    """
    name = path.with_name(path.name + ".lock")
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DatabaseLockedError(
            f"{path} is in use by process {holder}; stop that controller first"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.ENOSPC:
            raise full(str(path)) from error
        raise DatabaseDamagedError(
            f"the disk under {path} failed ({error.strerror}); check the disk, then start again"
        ) from error
    return descriptor


def make_file(path: Path) -> None:
    """Make an empty database that only its owner may read, and its folder if need be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for folder in (path.parent, path.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_file(path: Path) -> None:
    """Raise `DatabaseMissingError` when there is no file: a lost one is never replaced unasked."""
    if not path.is_file():
        raise DatabaseMissingError(
            f"there is no database at {path}; restore it from a backup of the controller"
        )


def writer_engine(path: Path, *, check: bool) -> Engine:
    """An engine with the one connection that writes; it is opened here, by the caller's thread.

    Raises `DatabaseDamagedError` when the file is no database or `check` finds damage.
    """
    raw = None
    try:
        raw = _connect(path)
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        raw.execute(f"PRAGMA journal_size_limit = {_KEPT_LOG_BYTES}")
        raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        found = [row[0] for row in raw.execute("PRAGMA quick_check(5)")] if check else ["ok"]
    except sqlite3.DatabaseError as error:
        if raw is not None:
            raw.close()
        if is_full(getattr(error, "sqlite_errorcode", 0)):
            raise full(str(path)) from error
        raise damaged(path, str(error)) from error
    if found != ["ok"]:
        raw.close()
        raise damaged(path, "; ".join(found))
    engine = create_engine(
        "sqlite://", creator=lambda: raw, poolclass=StaticPool, hide_parameters=_HIDDEN
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reader_engine(path: Path, *, size: int) -> Engine:
    """An engine of connections that can only read and never checkpoint."""

    def connect() -> sqlite3.Connection:
        raw = _connect(path)
        raw.execute("PRAGMA wal_autocheckpoint = 0")
        raw.execute("PRAGMA query_only = ON")
        return raw

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=_HIDDEN,
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def is_full(code: int) -> bool:
    """Whether SQLite's code says that the disk is full, also of what it keeps beside the file."""
    return code & PRIMARY == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def named(path: Path, error: DBAPIError) -> Exception:
    """The error of ours for one of a read; the same one where it is no trouble of the disk."""
    code = getattr(error.orig, "sqlite_errorcode", 0)
    if is_full(code):
        return full(str(path))
    return damaged(path, str(error.orig)) if code & PRIMARY in FATAL else error


def full(name: str) -> DatabaseFullError:
    """The error for a disk without room."""
    return DatabaseFullError(f"the disk under {name} is full; nothing was recorded, make room")


def damaged(path: Path, found: str) -> DatabaseDamagedError:
    """The error for a file that cannot be trusted."""
    return DatabaseDamagedError(
        f"{path} is damaged ({found}); keep a copy, then restore the database from its last "
        "backup and run `stead vault rebuild`"
    )


def _connect(path: Path) -> sqlite3.Connection:
    # BEGIN is ours to say: the driver's own would leave DDL and SAVEPOINT outside of it.
    return sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
