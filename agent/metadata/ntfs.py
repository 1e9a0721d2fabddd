"""Named streams of an NTFS volume that Linux has mounted by NTFS-3G.

Mounted with `streams_interface=windows` it opens `name:stream`, and tells the names in the
attribute `ntfs.streams.list` (ntfs-3g(8), "Alternate Data Streams"). With its default a
stream is an attribute, and kept as one. A directory that is open has its own as `:stream`.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from agent.metadata.named import Listing, Named
from agent.metadata.windows.streams import problem_of
from protocol.errors import InvalidError
from protocol.vault.entry import MAX_XATTRS

_LIST: Final = "ntfs.streams.list"
_NEVER: Final = frozenset({errno.ENOTSUP, errno.ENODATA, errno.EINVAL, errno.ENOSYS, errno.EPERM})


def names_of(listed: bytes) -> list[bytes]:
    """The names in the attribute, sorted.

    >>> names_of(b"note\\0Zone.Identifier")
    [b'Zone.Identifier', b'note']
    """
    return sorted({name for name in listed.split(b"\0") if name})


def listing(directory_fd: int, name: bytes) -> Listing | None:
    """The streams of something in a directory, or of that itself; None where it has no place
    for any. Raises `OSError`.
    """
    try:
        if name:
            path = b"/proc/self/fd/%d/%s" % (directory_fd, name)
            listed = os.getxattr(path, _LIST, follow_symlinks=False)
        else:
            listed = os.getxattr(directory_fd, _LIST)
    except OSError as error:
        if error.errno in _NEVER:
            return None
        raise
    found: list[Named] = []
    left_out: list[str] = []
    for one in names_of(listed):
        problem = problem_of(one)
        shown = one[:80].decode(errors="backslashreplace")
        if problem is not None:
            left_out.append(f"its named stream {shown} {problem}")
        elif len(found) == MAX_XATTRS:
            left_out.append(f"its named stream {shown} is beyond the first {MAX_XATTRS}")
        else:
            # One that has gone since is none of its streams.
            with suppress(FileNotFoundError):
                stat = os.stat(path_of(name, one), dir_fd=directory_fd, follow_symlinks=False)
                found.append(Named(one, stat.st_size))
    return Listing(tuple(found), tuple(left_out))


def path_of(name: bytes, stream: bytes) -> bytes:
    """What opens a stream in the directory; `InvalidError` for what leads elsewhere.

    >>> path_of(b"report.txt", b"note"), path_of(b"", b"note")
    (b'report.txt:note', b':note')
    """
    problem = problem_of(stream)
    if problem is not None:
        raise InvalidError(f"the stream {stream[:64]!r} {problem}")
    return name + b":" + stream
