"""Named streams: content that a file or a folder has beside its main one, and its shapes.

NTFS has alternate streams of any name, macOS has resource forks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Final, NamedTuple

from agent.host.descriptor import ANYBODYS, OURS
from protocol.vault.chunk import Buffer

Fill = Callable[[memoryview], int]
"""Reads what comes next; fewer bytes than there is room for only at the end. `OSError`."""
Write = Callable[[Buffer | int], None]
"""Appends a piece; a number is a hole of so many bytes. `OSError`."""

if sys.platform == "win32":
    _AS_ITSELF: Final = 0  # streams are opened there by calls that say it themselves
else:
    _AS_ITSELF: Final = os.O_NOFOLLOW
READ: Final = os.O_RDONLY | _AS_ITSELF | ANYBODYS
MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _AS_ITSELF | OURS


class Named(NamedTuple):
    """A stream: its name, and its length in bytes."""

    name: bytes
    size: int


class Listing(NamedTuple):
    """Those that one thing has, sorted by name; a sentence for each that cannot be kept."""

    streams: tuple[Named, ...] = ()
    left_out: tuple[str, ...] = ()


NO_STREAMS: Final = Listing()


@contextmanager
def reading(fd: int) -> Iterator[Fill]:
    """Read a stream that is open as a file is, from its beginning; it is closed then."""
    with FileIO(fd, "rb") as file:

        def fill(view: memoryview) -> int:
            got = 0
            while got < len(view):
                more = file.readinto(view[got:])
                if not more:
                    break
                got += more
            return got

        yield fill


@contextmanager
def writing(fd: int) -> Iterator[Write]:
    """Write an empty stream that is open as a file is; it is closed then."""
    with FileIO(fd, "wb") as file:

        def write(piece: Buffer | int) -> None:
            if isinstance(piece, int):
                file.seek(piece, os.SEEK_CUR)
                return
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]

        yield write
        file.truncate()
