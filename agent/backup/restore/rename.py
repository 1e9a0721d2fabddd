"""Give a file or a folder its name without ever taking another's."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from typing import Final

_NO_REPLACE: Final = 1
"""RENAME_NOREPLACE of <linux/fs.h>."""
_FILLED: Final = (errno.ENOTEMPTY, errno.EEXIST)
_DIRECTORY: Final = 4
_UNFINISHED: Final = 0o1700
"""See `fresh`: it is one of ours that was not finished, should this be killed here."""

_NOT_HERE: Final = (errno.ENOSYS, errno.EINVAL, errno.EPERM)

_library = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_library, "renameat2", None)


def rename_to_new(old: bytes, new: bytes, directory: int, into: int | None = None) -> None:
    """Rename inside a directory, or `into` another of the same file system.

    `FileExistsError` when something has the name already.
    """
    into = directory if into is None else into
    if _renameat2 is not None:
        if not _renameat2(directory, old, into, new, _NO_REPLACE):
            return
        number = ctypes.get_errno()
        if number not in _NOT_HERE:
            raise OSError(number, os.strerror(number))
    # A file system without it, such as NFS and NTFS-3G.
    if os.stat(old, dir_fd=directory, follow_symlinks=False).st_mode >> 12 == _DIRECTORY:
        _replace_own(old, new, directory, into)
        return
    # A second name, which is never another's, then not the first.
    os.link(old, new, src_dir_fd=directory, dst_dir_fd=into, follow_symlinks=False)
    os.unlink(old, dir_fd=directory)


def _replace_own(old: bytes, new: bytes, directory: int, into: int) -> None:
    """An empty folder of our own has the name first: none but an empty one is replaced."""
    os.mkdir(new, _UNFINISHED, dir_fd=into)
    try:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=into)
    except OSError as error:
        if error.errno in _FILLED:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        with suppress(OSError):
            os.rmdir(new, dir_fd=into)
        raise
