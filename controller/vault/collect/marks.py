"""The chunks that a collection has reached: a scratch file, so that memory stays flat.

Trees are kept by their whole id, for a tree that was taken for another one would not be
followed. Of everything that is reached the first eight bytes suffice: who makes two ids
of one beginning keeps a chunk too many, and loses none.

The file is worthless after a crash, and made anew each time.
"""

from __future__ import annotations

import errno
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from controller.vault.upload.pins import PREFIX_BYTES, prefix_of
from protocol.errors import Code, SteadError
from protocol.vault.chunk import ID_BYTES, ChunkId

CACHE_KIB = 64 * 1024
SPOOL = 250_000
_BATCH = 20_000
_PRIMARY = 0xFF
# SQLite counts from -2^63: shifted like this, prefixes keep their order.
_SHIFT = 1 << 63
_ALL_ONES = b"\xff" * (ID_BYTES - PREFIX_BYTES)
_TABLES = """
CREATE TABLE trees (
    id BLOB PRIMARY KEY, pack INTEGER NOT NULL, start INTEGER NOT NULL,
    length INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX waiting ON trees (pack, start) WHERE state = 1;
CREATE TABLE marks (prefix INTEGER PRIMARY KEY, must INTEGER NOT NULL);
CREATE TEMP TABLE asked (id BLOB);
"""


class ScratchError(SteadError):
    """There is no room for the scratch file, or its disk failed: nothing was condemned."""

    def __init__(self, path: Path, error: Exception) -> None:
        full = _PRIMARY & getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        full = full or getattr(error, "errno", None) == errno.ENOSPC
        super().__init__(
            f"nothing was condemned: {path} cannot be written ({error}); "
            + ("make room, then collect again" if full else "check the disk"),
            code=Code.STORE_FULL if full else Code.UNAVAILABLE,
        )


class Tree(NamedTuple):
    """Where a tree chunk lies: the number of its pack, its offset and length there."""

    id: ChunkId
    pack: int
    offset: int
    length: int


class Marks:
    """Use as a context; belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spool = array("q")
        self._db: sqlite3.Connection

    def __enter__(self) -> Marks:
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            self._close()
            raise ScratchError(self._path, error) from error
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        self._close()
        if isinstance(error, sqlite3.Error):
            raise ScratchError(self._path, error) from error

    def _open(self) -> None:
        _remove(self._path)
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for pragma in (
            "journal_mode = OFF",
            "synchronous = OFF",
            f"cache_size = -{CACHE_KIB}",
            "temp_store = MEMORY",
            "locking_mode = EXCLUSIVE",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_TABLES)

    def _close(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()
        with suppress(OSError):
            _remove(self._path)

    def add_trees(self, trees: Iterable[Tree]) -> None:
        """Tree chunks that may turn out to be reached."""
        self._db.executemany(
            "INSERT OR IGNORE INTO trees (id, pack, start, length) VALUES (?, ?, ?, ?)", trees
        )

    def reach(self, ids: Sequence[ChunkId]) -> None:
        """Mark chunks; the trees among them wait to be followed."""
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM asked")
        self._db.executemany("INSERT INTO asked VALUES (?)", ((one,) for one in ids))
        self._db.execute(
            "UPDATE trees SET state = 1 WHERE state = 0 AND id IN (SELECT id FROM asked)"
        )
        self._db.execute("COMMIT")
        self._mark(map(prefix_of, ids))

    def reach_prefixes(self, prefixes: Sequence[int]) -> None:
        """`reach` for whatever begins with these and is there."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "UPDATE trees SET state = 1 WHERE state = 0 AND id BETWEEN ? AND ?",
            (between(prefix) for prefix in prefixes),
        )
        self._db.execute("COMMIT")
        # What must be there is written first: a pin takes nothing of that away.
        self._write()
        self._insert(sorted({prefix - _SHIFT for prefix in prefixes}), must=0)

    def waiting(self, limit: int) -> list[Tree]:
        """Reached trees that nobody has followed yet, in the order of the packs."""
        rows = self._db.execute(
            "SELECT id, pack, start, length FROM trees INDEXED BY waiting "
            "WHERE state = 1 ORDER BY pack, start LIMIT ?",
            (limit,),
        )
        return [Tree(*row) for row in rows.fetchall()]

    def followed(self, trees: Sequence[Tree]) -> None:
        """Everything that these name is marked."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "UPDATE trees SET state = 2 WHERE id = ?", ((tree.id,) for tree in trees)
        )
        self._db.execute("COMMIT")

    def is_reached(self, tree: ChunkId) -> bool:
        """Whether a tree chunk of before is reached; False for what is none."""
        row = self._db.execute("SELECT state FROM trees WHERE id = ?", (tree,)).fetchone()
        return row is not None and row[0] > 0

    def in_order(self) -> Iterator[tuple[int, bool]]:
        """All prefixes that were reached, ascending, and whether a chunk must be there."""
        self._write()
        start = -_SHIFT
        while True:
            rows = self._db.execute(
                "SELECT prefix, must FROM marks WHERE prefix >= ? ORDER BY prefix LIMIT ?",
                (start, _BATCH),
            ).fetchall()
            for shifted, must in rows:
                yield shifted + _SHIFT, bool(must)
            if len(rows) < _BATCH or rows[-1][0] == _SHIFT - 1:
                return
            start = rows[-1][0] + 1

    def _mark(self, prefixes: Iterable[int]) -> None:
        self._spool.extend(prefix - _SHIFT for prefix in prefixes)
        if len(self._spool) >= SPOOL:
            self._write()

    def _write(self) -> None:
        """In order: neighbours are written to the same page."""
        ordered = sorted(set(self._spool))
        del self._spool[:]
        self._insert(ordered, must=1)

    def _insert(self, ordered: Iterable[int], must: int) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR IGNORE INTO marks VALUES (?, ?)", ((one, must) for one in ordered)
        )
        self._db.execute("COMMIT")


def between(prefix: int) -> tuple[bytes, bytes]:
    """The first and the last id that begin with a prefix.

    >>> [len(edge) for edge in between(1)]
    [32, 32]
    """
    start = prefix.to_bytes(PREFIX_BYTES, "big")
    return start + bytes(len(_ALL_ONES)), start + _ALL_ONES


def _remove(path: Path) -> None:
    for name in (path, path.with_name(path.name + "-journal")):
        name.unlink(missing_ok=True)
