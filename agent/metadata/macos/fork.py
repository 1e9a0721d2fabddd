"""Read and write a resource fork piece by piece: the one attribute that macOS takes in pieces.

`position` of `getxattr` and `setxattr` says where a piece lies (getxattr(2)). So it goes by
the open file, and nothing can be put in its place meanwhile, as behind a path it could.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from agent.metadata.macos.attributes import RESOURCE_FORK
from agent.metadata.named import Fill, Write
from protocol.vault.chunk import Buffer

_PIECE: Final = 1024 * 1024


@contextmanager
def reading(library: Any, fd: int) -> Iterator[Fill]:
    """Read the fork of an open file, which stays the caller's."""
    place = 0

    def fill(view: memoryview) -> int:
        nonlocal place
        got = 0
        while got < len(view):
            room = ctypes.create_string_buffer(min(_PIECE, len(view) - got))
            more = library.fgetxattr(fd, RESOURCE_FORK, room, len(room), place, 0)
            if more < 0:
                raise _error()
            if not more:
                break
            view[got : got + more] = room.raw[:more]
            got, place = got + more, place + more
        return got

    yield fill


@contextmanager
def writing(library: Any, fd: int) -> Iterator[Write]:
    """Write the fork of an open file that has none, and that stays the caller's."""
    place = end = 0

    def put(piece: bytes, at: int) -> None:
        nonlocal end
        if library.fsetxattr(fd, RESOURCE_FORK, piece, len(piece), at, 0):
            raise _error()
        end = at + len(piece)

    def write(piece: Buffer | int) -> None:
        nonlocal place
        if isinstance(piece, int):
            place += piece
            return
        view = memoryview(piece)
        for start in range(0, len(view), _PIECE):
            part = bytes(view[start : start + _PIECE])
            put(part, place)
            place += len(part)

    yield write
    if place > end:
        put(b"\0", place - 1)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
