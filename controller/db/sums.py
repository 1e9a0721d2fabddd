"""Sums over a database file at rest: what SQLite's own checks cannot see.

SQLite has no checksum over rows: a flipped bit inside a name or a number is, to it,
another name or number. So a database that is closed cleanly leaves a file of sums
beside it, one per block, and the next one to open it compares. While it is open there
are none: they would be wrong after the first write. So what is found is what happened
to the file while nobody had it open, and only if it was closed and not killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from blake3 import blake3

from controller.db.errors import DatabaseDamagedError
from protocol.errors import UNREADABLE

BLOCK_BYTES = 1024 * 1024
SUM_BYTES = 16


class Sums(msgspec.Struct, frozen=True):
    """The file `<database>.sums`: the size in bytes, and BLAKE3 of each block, cut to 16."""

    size: int
    blocks: tuple[bytes, ...]


def write_sums(path: Path) -> bool:
    """Leave the sums of a closed database beside it, durably.

    False when the disk does not take them: the database is closed all the same, and
    the next one to open it has nothing to compare with.
    """
    try:
        _write(path)
    except OSError:
        _place(path).unlink(missing_ok=True)
        return False
    return True


def _write(path: Path) -> None:
    blocks = tuple(_sums_of(path))
    encoded = msgspec.msgpack.encode(Sums(path.stat().st_size, blocks))
    temporary = path.with_name(path.name + ".sums.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, encoded)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(_place(path))
    _sync(path.parent)


def take_sums(path: Path) -> None:
    """Compare a database with the sums beside it, and take them away; no sums, no question.

    Raises `DatabaseDamagedError` that names the bytes that changed; the sums stay then.
    """
    place = _place(path)
    try:
        kept = msgspec.msgpack.decode(place.read_bytes(), type=Sums)
    except FileNotFoundError:
        return
    except UNREADABLE as error:
        raise DatabaseDamagedError(
            f"{place} is damaged ({error}); if the database beside it is sound, delete it"
        ) from error
    found = tuple(_sums_of(path))
    wrong = [n for n, (a, b) in enumerate(zip(kept.blocks, found, strict=False)) if a != b]
    size = path.stat().st_size
    if wrong or size != kept.size:
        what = (
            f"bytes {wrong[0] * BLOCK_BYTES} to {(wrong[0] + 1) * BLOCK_BYTES - 1} are not what "
            "they were"
            if wrong
            else f"it has {size} bytes instead of {kept.size}"
        )
        raise DatabaseDamagedError(
            f"{path} was changed since it was closed: {what}; keep a copy, restore the database "
            f"from its last backup, delete {place.name} beside it, and run `stead vault rebuild`"
        )
    try:
        place.unlink()
        _sync(path.parent)
    except OSError as error:
        raise DatabaseDamagedError(
            f"the disk under {path} failed ({error.strerror}); check the disk, then start again"
        ) from error


def _sums_of(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as opened:
        while block := opened.read(BLOCK_BYTES):
            yield blake3(block).digest(SUM_BYTES)


def _place(path: Path) -> Path:
    return path.with_name(path.name + ".sums")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
