"""Read one file so that what is kept belongs to one moment, or say that it does not.

Opening never follows a link, never waits for a pipe, and leaves the access time alone
where the system allows it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from agent.metadata.extras import NOTHING, Extras
from agent.metadata.system import SYSTEM
from protocol.errors import Code, SteadError
from protocol.vault.sizes import SMALL_FILE_BYTES

OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOATIME: Final = getattr(os, "O_NOATIME", 0)
_TRIES: Final = 3
_BLOCK: Final = 512
_FILE: Final = 8
NO_SEEKING: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
"""What a file system answers that cannot tell where data is."""
_extras_of = SYSTEM.of_open


class ChangedTypeError(SteadError):
    """What was a file when it was listed is something else now."""

    code = Code.PRECONDITION


class AwayError(SteadError):
    """A file that is not on the machine: reading it would fetch it from a cloud."""

    code = Code.PRECONDITION

    def __init__(self) -> None:
        super().__init__("its content is in a cloud and not on this machine; open it to fetch it")


class Content(NamedTuple):
    """A small file: its length, what its system knows of it, and what it was when it was read.

    `size` is -1 when it is no small file any more. `changed`: it never held still.
    """

    size: int
    extras: Extras
    stat: os.stat_result
    changed: bool


def open_file(directory_fd: int, name: bytes) -> int:
    """Open a file for reading. Raises `OSError`."""
    try:
        return os.open(name, OPEN_FILE | _NOATIME, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, OPEN_FILE, dir_fd=directory_fd)


def is_small(stat: os.stat_result) -> bool:
    """Whether a file is read at once: short, and not full of holes."""
    size = stat.st_size
    return size < SMALL_FILE_BYTES and stat.st_blocks * _BLOCK > size - 4096


def read_small(directory_fd: int, name: bytes, stat: os.stat_result, room: memoryview) -> Content:
    """Read a file that `is_small` to the beginning of `room`, which takes `SMALL_FILE_BYTES`.

    Raises `OSError` and `ChangedTypeError`.
    """
    fd = open_file(directory_fd, name)
    try:
        for _ in range(_TRIES):
            size = stat.st_size
            got = os.preadv(fd, (room[: size + 1],), 0)
            extras = _extras_of(fd)
            after = os.fstat(fd)
            if (
                after.st_ctime_ns == stat.st_ctime_ns
                and after.st_mtime_ns == stat.st_mtime_ns
                and after.st_ino == stat.st_ino
                and got == after.st_size == size
            ):
                return Content(got, extras, after, changed=False)
            if after.st_mode >> 12 != _FILE:
                raise ChangedTypeError("changed its type during the backup")
            # Some file systems do not know how long a file is before it is read.
            says_less = got > after.st_size == size
            stat = after
            if says_less or not is_small(stat):
                return Content(-1, NOTHING, stat, changed=False)
        return Content(got, extras, stat, changed=True)
    finally:
        os.close(fd)


def data_ranges(fd: int, stat: os.stat_result) -> Iterator[tuple[int, int, bool]]:
    """The file as (start, end, whether there is data), end to end; `end` may be -1.

    -1 stands for "until nothing more comes": the last piece of data of a file without
    holes, which may have grown.
    """
    size = stat.st_size
    if stat.st_blocks * _BLOCK >= size:
        yield 0, -1, True
        return
    place = 0
    while place < size:
        try:
            data = os.lseek(fd, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno in NO_SEEKING:
                yield place, -1, True
                return
            # Whatever else went wrong: nobody knows that nothing is there.
            if error.errno != errno.ENXIO:
                raise
            data = size
        data = min(data, size)
        if data > place:
            yield place, data, False
        if data < size:
            hole = min(os.lseek(fd, data, os.SEEK_HOLE), size)
            yield data, hole, True
            data = hole
        place = data
