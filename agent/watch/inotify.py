"""Linux' inotify(7), as it is: watches on directories, and events in the order they happened.

A library would do for the events, but not for the evidence: this needs the overflow, the
errors and the order just as the kernel gives them, and a few microseconds an event.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

MODIFY: Final = 0x002
ATTRIB: Final = 0x004
CLOSE_WRITE: Final = 0x008
MOVED_FROM: Final = 0x040
MOVED_TO: Final = 0x080
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
IS_DIRECTORY: Final = 0x4000_0000
_ONLY_DIRECTORY: Final = 0x0100_0000
_DONT_FOLLOW: Final = 0x0200_0000
_CHANGES: Final = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
_OF_ITSELF: Final = DELETE_SELF | MOVE_SELF
_BUFFER_BYTES: Final = 256 * 1024
_head = Struct("iIII")


class Event(NamedTuple):
    """One event: of which watch, what, and the name in the directory if it has one."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One queue of events. `fd` can be polled. `close` it."""

    def __init__(self) -> None:
        """Raises `OSError`: where the system has none, or no more of them for this user."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._call(self._libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)

    def add(self, path: bytes) -> int:
        """Watch a directory; a number that is the same for the same directory. `OSError`."""
        mask = _CHANGES | _OF_ITSELF | _ONLY_DIRECTORY | _DONT_FOLLOW
        return self._call(self._libc.inotify_add_watch, self.fd, path, mask)

    def remove(self, watch: int) -> None:
        """Watch it no longer; one that is gone already is no error."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Event]:
        """What has happened, some of it at a time; nothing when there is no more."""
        try:
            data = os.read(self.fd, _BUFFER_BYTES)
        except BlockingIOError:
            return
        place, end, size, unpack = 0, len(data), _head.size, _head.unpack_from
        while place < end:
            watch, mask, _cookie, length = unpack(data, place)
            place += size
            name = data[place : place + length].rstrip(b"\0") if length else b""
            place += length
            yield Event(watch, mask, name)

    def close(self) -> None:
        """Drop all watches."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _call(self, function: object, *arguments: object) -> int:
        assert callable(function)
        answer = int(function(*arguments))
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer
