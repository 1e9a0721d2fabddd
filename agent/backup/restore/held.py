"""Compare a file that is there with an entry, by content, fetching nothing where possible.

A chunk that a file has to itself is known by its fingerprint, and a small file inside
its entry by itself. Slices of shared chunks have to be fetched to be compared.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Final

from agent.backup.cut.read import NO_SEEKING
from protocol.vault.chunk import Buffer, Sealer
from protocol.vault.entry import Entry, Extent

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 1024 * 1024


def open_file(directory: int, name: bytes) -> int:
    """A descriptor for reading; raises `OSError`."""
    return os.open(name, _OPEN, dir_fd=directory)


def holds_pieces(fd: int, pieces: Sequence[Buffer | int], place: int = 0) -> bool:
    """Whether the file has these pieces from `place` on; a number is that many zeros."""
    for piece in pieces:
        length = piece if isinstance(piece, int) else len(piece)
        if isinstance(piece, int):
            if not _is_empty(fd, place, length):
                return False
        elif _read(fd, place, length) != piece:
            return False
        place += length
    return True


def holds_extents(fd: int, entry: Entry, extents: Iterable[Extent], sealer: Sealer) -> bool | None:
    """Whether the file has this content; None where only fetching can tell."""
    if entry.inline is not None:
        return holds_pieces(fd, [entry.inline])
    place = 0
    for extent in extents:
        reference, length = extent.reference, extent.length
        if reference is None:
            if not _is_empty(fd, place, length):
                return False
        elif length != reference.length:
            return None
        elif sealer.fingerprint(_read(fd, place, length)) != reference.fingerprint:
            return False
        place += length
    return True


def _read(fd: int, place: int, length: int) -> bytes:
    found = os.pread(fd, length, place)
    while len(found) < length:
        more = os.pread(fd, length - len(found), place + len(found))
        if not more:
            break
        found += more
    return found


def _is_empty(fd: int, place: int, length: int) -> bool:
    """Whether a stretch is a hole or zeros; holes are passed over, however long."""
    end = place + length
    while place < end:
        try:
            place = os.lseek(fd, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            if error.errno not in NO_SEEKING:
                raise
        size = min(_PIECE, end - place)
        if size > 0 and any(_read(fd, place, size)):
            return False
        place += max(size, 0)
    return True
