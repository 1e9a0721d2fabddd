"""What file systems call attributes of a file: immutable, append only, and their like.

An entry has them as an extension: 4 bytes, little endian, with the bits that Linux
gives them. Only what an administrator sets and a restore can set again is kept.
"""

from __future__ import annotations

import fcntl
from typing import Final

from protocol.vault.entry import Entry

NAME: Final = "posix.flags"
IMMUTABLE: Final = 0x10
APPEND_ONLY: Final = 0x20
NO_DUMP: Final = 0x40
NO_ATIME: Final = 0x80
KEPT: Final = IMMUTABLE | APPEND_ONLY | NO_DUMP | NO_ATIME
HOLDING: Final = IMMUTABLE | APPEND_ONLY
"""Those that keep what has them from being changed or replaced."""

_GET: Final = 0x80086601  # FS_IOC_GETFLAGS, in linux/fs.h
_SET: Final = 0x40086602  # FS_IOC_SETFLAGS
_ROOM: Final = bytes(8)
_BYTES: Final = 4


def read_flags(fd: int) -> int:
    """The flags of an open file or directory; 0 where the file system has none.

    Not to be asked of a device: it would take the question for one of its own.
    """
    try:
        return int.from_bytes(fcntl.ioctl(fd, _GET, _ROOM)[:_BYTES], "little") & KEPT
    except OSError:
        return 0


def write_flags(fd: int, flags: int) -> None:
    """Give an open file or directory these flags, and leave the others it has; `OSError`."""
    found = int.from_bytes(fcntl.ioctl(fd, _GET, _ROOM)[:_BYTES], "little")
    if found & KEPT != flags:
        fcntl.ioctl(fd, _SET, (found & ~KEPT | flags).to_bytes(len(_ROOM), "little"))


def extension_of(flags: int) -> tuple[tuple[str, bytes], ...]:
    """What an entry needs to say so; nothing for nearly every file.

    >>> extension_of(IMMUTABLE)
    (('posix.flags', b'\\x10\\x00\\x00\\x00'),)
    """
    return ((NAME, flags.to_bytes(_BYTES, "little")),) if flags else ()


def flags_of(entry: Entry) -> int:
    """The flags of an entry; what is not known here, or is no flags at all, counts for none.

    >>> from protocol.vault.entry import Owner
    >>> flags_of(Entry(b"x", 0o100644, Owner(0, 0), 0, extensions=extension_of(APPEND_ONLY)))
    32
    """
    if not entry.extensions:
        return 0
    value = dict(entry.extensions).get(NAME, b"")
    return int.from_bytes(value, "little") & KEPT if len(value) == _BYTES else 0
