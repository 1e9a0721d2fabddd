"""What a task prints, kept in a file until the controller has it.

A program that prints never waits for the link, and a link that was down misses
nothing: pieces are numbered, so sending them again does no harm. Beyond its bound
output is dropped and that is noted; the program goes on.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from agent.host.descriptor import OURS, pread, pwrite
from protocol.errors import Code, SteadError
from protocol.ids import TaskId, check_id

LIMIT_BYTES = 8 * 1024 * 1024
PIECE_BYTES = 32 * 1024
_HEAD = struct.Struct(">BI")


class Printed(IntEnum):
    """Where something was printed; the numbers are those of the wire."""

    STDOUT = 1
    STDERR = 2
    PROGRESS = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of output, and where in the file the next one begins."""

    printed: Printed
    data: bytes
    next: int


class Spool:
    """The output of one task: `append` adds to it, `piece_at` reads from it."""

    def __init__(self, directory: Path, task: TaskId, *, limit: int = LIMIT_BYTES) -> None:
        self._path = directory / check_id("ts", task)
        self._limit = limit
        self._kept = 0
        self.truncated = False
        self.on_append: Callable[[], None] = lambda: None
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | OURS, 0o600)
        except OSError as error:
            raise SteadError(
                f"the task's output cannot be kept in {directory}: {error.strerror}; look at free "
                "space and permissions",
                code=Code.STORE_FULL,
            ) from error
        self.size = self._whole()

    def _whole(self) -> int:
        """The length up to the last whole piece, should an earlier agent have been killed."""
        size = 0
        length = os.fstat(self._file).st_size
        while (piece := self.piece_at(size, length)) is not None:
            size = piece.next
            self._kept += len(piece.data)
        os.ftruncate(self._file, size)
        return size

    def append(self, printed: Printed, data: bytes) -> None:
        """Keep what was printed, as far as the bound and the disk allow."""
        room = self._limit - self._kept
        if len(data) > room:
            self.truncated = True
            data = data[:room]
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            line = _HEAD.pack(printed, len(piece)) + piece
            try:
                if pwrite(self._file, line, self.size) != len(line):
                    self.truncated = True
                    return
            except OSError:
                # A full disk costs output, which says so, and never the task's outcome.
                self.truncated = True
                return
            self.size += len(line)
            self._kept += len(piece)
        self.on_append()

    def piece_at(self, offset: int, size: int | None = None) -> Piece | None:
        """The piece that begins at an offset; None at the end."""
        end = self.size if size is None else size
        head = pread(self._file, _HEAD.size, offset) if offset + _HEAD.size <= end else b""
        if len(head) < _HEAD.size:
            return None
        printed, length = _HEAD.unpack(head)
        following = offset + _HEAD.size + length
        if following > end or printed not in set(Printed) or length > PIECE_BYTES:
            return None
        return Piece(Printed(printed), pread(self._file, length, offset + _HEAD.size), following)

    def close(self) -> None:
        """Let go of the file and leave it where it is."""
        os.close(self._file)

    def remove(self) -> None:
        """Let go of the file and delete it: the controller has everything."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)
