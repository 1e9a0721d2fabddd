"""Keep groups of names in a file, where there are more of them than memory should hold.

The file is worthless after a crash, and made anew each time. It lies in the agent's own
cache: what is in it can read what was backed up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

CACHE_KIB: Final = 8 * 1024
_TABLE: Final = """
CREATE TABLE groups (device INTEGER, inode INTEGER, missing INTEGER, packed BLOB,
PRIMARY KEY (device, inode)) WITHOUT ROWID
"""
_HALF: Final = 1 << 63
_WHOLE: Final = 1 << 64

Identity = tuple[int, int]


class Scratch:
    """Records by device and inode; methods may raise `sqlite3.Error`. `close` removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        path.chmod(0o600)
        for pragma in (
            "journal_mode = MEMORY",
            "synchronous = OFF",
            f"cache_size = -{CACHE_KIB}",
            "locking_mode = EXCLUSIVE",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(_TABLE)
        self.count = 0

    def put(self, records: Iterable[tuple[Identity, int, bytes]]) -> bool:
        """Keep records, each with how many names are to come; False where there is no room."""
        rows = [(*map(_signed, identity), left, packed) for identity, left, packed in records]
        try:
            with self._db:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT INTO groups VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error:
            return False
        self.count += len(rows)
        return True

    def take(self, identity: Identity) -> tuple[int, bytes] | None:
        """A record, which is not kept any more."""
        key = tuple(map(_signed, identity))
        found = self._db.execute(
            "DELETE FROM groups WHERE device = ? AND inode = ? RETURNING missing, packed", key
        ).fetchone()
        if found is None:
            return None
        self.count -= 1
        return int(found[0]), bytes(found[1])

    def missing(self) -> Iterator[tuple[Identity, int]]:
        """Of each record how many names are to come."""
        for device, inode, left in self._db.execute("SELECT device, inode, missing FROM groups"):
            yield (device % _WHOLE, inode % _WHOLE), left

    def close(self) -> None:
        """Remove the file."""
        self._db.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _signed(number: int) -> int:
    """What SQLite takes for an integer."""
    return number - _WHOLE if number >= _HALF else number
