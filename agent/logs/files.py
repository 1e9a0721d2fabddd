"""Plain log files, with what rotation made of them, read by time and followed.

Rotation renames: `messages` becomes `messages.1`, `messages-20260504`, perhaps compressed.
Whatever is read is a regular file, a piece at a time; one line is at most `LINE_BYTES` long,
and what is longer comes in pieces. How a file is opened, and which are not, is the caller's
to say: `Reach` gives a descriptor.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import IO, Any

from agent.logs.span import Chooser, Span, last
from agent.logs.stamps import time_of
from protocol.errors import Code, InvalidError, NotFoundError, SteadError

LINE_BYTES = 64 * 1024
MOST_BYTES = 8 * 1024 * 1024
Reach = Callable[[Path], int]
"""Opens a regular file for reading; raises `SteadError` for any other."""

_ROTATED = re.compile(r"(?:\.\d{1,4}|-\d{8}(?:-?\d{1,10})?)(?:\.(?:gz|xz|bz2))?")
_FAR_S = 221_845_392_000.0
"""The year 9000."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log, and when it was written last."""

    path: Path
    written_at: datetime


def files_of(path: Path) -> list[LogFile]:
    """A log's own file and what was rotated away from it, the oldest first.

    Raises INVALID for what is no absolute path, NOT_FOUND when there is none of them.
    """
    if not path.is_absolute() or "\0" in str(path):
        raise InvalidError(f"{str(path)[:200]!r} is not an absolute path")
    found = []
    try:
        beside = list(path.parent.iterdir())
    except OSError as error:
        raise NotFoundError(f"cannot look into {path.parent}: {error.strerror}") from None
    for one in beside:
        rest = one.name.removeprefix(path.name)
        if one == path or (one.name.startswith(path.name) and _ROTATED.fullmatch(rest)):
            try:
                status = one.stat()
            except OSError:
                continue  # rotated away just now
            if stat.S_ISREG(status.st_mode):
                found.append(LogFile(one, written_at(status.st_mtime)))
    if not found:
        raise NotFoundError(f"{path} is not there, or is no regular file")
    return sorted(found, key=lambda file: (file.path == path, file.written_at, file.path))


def written_at(seconds: float) -> datetime:
    """When a file was written, as a time that can be reckoned with: some file systems keep years
    beyond all calendars, and whoever owns a file names one.

    >>> written_at(2.0**62).year, written_at(-(2.0**62)).year
    (9000, 1970)
    """
    return datetime.fromtimestamp(min(max(seconds, 0.0), _FAR_S), UTC)


@contextmanager
def opened(path: Path, reach: Reach) -> Iterator[IO[bytes]]:
    """A regular file, unpacked."""
    with os.fdopen(reach(path), "rb") as file:
        yield _unpacked(file, path.suffix)


def _unpacked(file: IO[bytes], suffix: str) -> IO[bytes]:
    unpacked: Any = file
    match suffix:
        case ".gz":
            unpacked = gzip.GzipFile(fileobj=file, mode="rb")
        case ".xz":
            unpacked = lzma.LZMAFile(file)  # noqa: SIM115 - as long as the file below it
        case ".bz2":
            unpacked = bz2.BZ2File(file)
    opened_file: IO[bytes] = unpacked
    return opened_file


def lines_of(file: IO[bytes], path: Path, most: int = sys.maxsize) -> Iterator[bytes]:
    """The lines of the first `most` bytes; PRECONDITION where the file is damaged."""
    try:
        while line := file.readline(min(LINE_BYTES, most)):
            most -= len(line)
            yield line
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise SteadError(f"{path} cannot be read whole: {error}", code=Code.PRECONDITION) from error


@dataclass(frozen=True, slots=True)
class End:
    """Where a file ended at one moment, by what no rotation changes."""

    device: int
    inode: int
    offset: int


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a log: whether a bound of bytes cut it, and whether lines had times.

    `damaged` says why a file that was rotated away could not be read, or not to its end.
    """

    cut: bool
    stamped: bool
    damaged: tuple[str, ...] = ()


def read_log(
    path: Path,
    span: Span,
    count: int,
    zone: tzinfo,
    printed: Callable[[bytes], bool],
    end: End | None = None,
    *,
    reach: Reach,
) -> Read:
    """Pass on the lines within `span`, the last `count` of them (all when 0).

    `printed` says whether there is room for more. Of the file that `end` names nothing is
    read beyond it: whoever follows it goes on from there. Raises `SteadError` when the log's
    own file cannot be read; an old one must not keep back what happened since.
    """
    files = [file for file in files_of(path) if span.since is None or file.written_at >= span.since]
    stamped = not span.bounded
    damaged: list[str] = []

    def chooser(file: LogFile) -> Chooser:
        return Chooser(span, lambda line: time_of(line, zone=zone, written_by=file.written_at))

    if not count:
        for one in files:
            choose = chooser(one)
            with _unless_rotated(one.path, path, damaged), opened(one.path, reach) as file:
                for line in choose.chosen(_lines_to(file, one.path, end)):
                    if not printed(line):
                        return Read(cut=True, stamped=True, damaged=tuple(damaged))
            stamped = stamped or choose.stamped
        return Read(cut=False, stamped=stamped or not files, damaged=tuple(damaged))
    # From the newest back, so that nothing is unpacked that is not wanted.
    pieces: list[list[bytes]] = []
    room, left, cut = MOST_BYTES, count, False
    for one in reversed(files):
        choose = chooser(one)
        found: list[bytes] = []
        with _unless_rotated(one.path, path, damaged), opened(one.path, reach) as file:
            found, cut = last(choose.chosen(_lines_to(file, one.path, end)), left, most_bytes=room)
        stamped = stamped or choose.stamped
        pieces.append(found)
        left -= len(found)
        room -= sum(map(len, found))
        if cut or left <= 0 or damaged:
            break  # the last lines have no gap in them
    for found in reversed(pieces):
        for line in found:
            printed(line)
    return Read(cut=cut, stamped=stamped or not files, damaged=tuple(damaged))


@contextmanager
def _unless_rotated(one: Path, path: Path, damaged: list[str]) -> Iterator[None]:
    """Note what is wrong with a file that was rotated away; raise it for the log's own."""
    try:
        yield
    except SteadError as error:
        if one == path:
            raise
        damaged.append(str(error))


def _lines_to(file: IO[bytes], path: Path, end: End | None) -> Iterator[bytes]:
    status = os.fstat(file.fileno())
    ours = end is not None and (status.st_dev, status.st_ino) == (end.device, end.inode)
    return lines_of(file, path, end.offset if ours and end is not None else sys.maxsize)


class Follower:
    """What is added to a file, through rotation: `begin` before the rest is read."""

    def __init__(self, path: Path, reach: Reach) -> None:
        self._path = path
        self._reach = reach
        self._file: IO[bytes] | None = None

    def begin(self) -> End | None:
        """Follow from the file's present end on, and say where that is."""
        self._file = self._open()
        if self._file is None:
            return None
        status = os.fstat(self._file.fileno())
        return End(status.st_dev, status.st_ino, self._file.seek(0, os.SEEK_END))

    def added(self) -> bytes:
        """What was added since the last call, at most `LINE_BYTES`; empty when nothing was."""
        data = b"" if self._file is None else self._file.read(LINE_BYTES)
        if data:
            return data
        # The old file has been read to its end: only now it may be let go.
        if self._replaced():
            if self._file is not None:
                self._file.close()
            self._file = self._open()
            return b"" if self._file is None else self._file.read(LINE_BYTES)
        return b""

    def close(self) -> None:
        """Follow no longer."""
        if self._file is not None:
            self._file.close()

    def _replaced(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:
            return False  # between two steps of a rotation
        if self._file is None:
            return True
        own = os.fstat(self._file.fileno())
        if (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino):
            return True
        return there.st_size < self._file.tell()

    def _open(self) -> IO[bytes] | None:
        try:
            return os.fdopen(self._reach(self._path), "rb", buffering=0)
        except NotFoundError:
            return None  # between two steps of a rotation
