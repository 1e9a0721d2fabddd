"""Open files by their numbers, in the way that each system has.

On Windows a file is one of lines unless it is said to be one of bytes, a lock keeps others
from reading what is locked, and nothing is read at an offset without moving to it.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

if sys.platform == "win32":
    import ctypes
    import msvcrt
    import threading
    from ctypes import wintypes

    OURS: Final = os.O_BINARY | os.O_NOINHERIT
    """For files of our own, besides how they are opened: bytes, and no program inherits it."""

    ANYBODYS: Final = OURS
    """For files that may be anything: nothing is waited for, whatever lies there."""

    _FAR: Final = 1
    """The high word of where the locked byte lies: no file of ours reaches there."""
    _AT_ONCE: Final = 1
    _ALONE: Final = 2
    _HELD: Final = 33  # ERROR_LOCK_VIOLATION

    class _Where(ctypes.Structure):
        """`OVERLAPPED`, of which only the offset matters here."""

        _fields_ = (
            ("internal", ctypes.c_void_p),
            ("internal_high", ctypes.c_void_p),
            ("offset", wintypes.DWORD),
            ("offset_high", wintypes.DWORD),
            ("event", wintypes.HANDLE),
        )

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.LockFileEx.restype = wintypes.BOOL
    _kernel.LockFileEx.argtypes = (
        wintypes.HANDLE,
        *[wintypes.DWORD] * 4,
        ctypes.POINTER(_Where),
    )
    _kernel.MoveFileExW.restype = wintypes.BOOL
    _kernel.MoveFileExW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD)
    _REPLACE_AND_WRITE_THROUGH: Final = 1 | 8
    _moving = threading.Lock()

    def replace(old: str, new: str) -> None:
        """Give a file the name of another, and return once the name is on the disk. `OSError`."""
        if not _kernel.MoveFileExW(old, new, _REPLACE_AND_WRITE_THROUGH):
            raise ctypes.WinError(ctypes.get_last_error())

    def take_lock(fd: int, *, shared: bool = False, wait: bool = False) -> bool:
        """Lock an open file until it is closed; False when another holds it. `OSError`."""
        how = (0 if shared else _ALONE) | (0 if wait else _AT_ONCE)
        where = _Where(offset_high=_FAR)
        if _kernel.LockFileEx(msvcrt.get_osfhandle(fd), how, 0, 1, 0, ctypes.byref(where)):
            return True
        number = ctypes.get_last_error()
        if number == _HELD:
            return False
        raise ctypes.WinError(number)

    def sync(fd: int) -> None:
        """Return once what was written is on the disk. `OSError`."""
        os.fsync(fd)

    def pread(fd: int, length: int, offset: int) -> bytes:
        """Read at an offset."""
        with _moving:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, length)

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        """Write at an offset; how much was written."""
        with _moving:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, data)

else:
    import fcntl

    OURS: Final = os.O_CLOEXEC
    """For files of our own, besides how they are opened: no program inherits it."""

    ANYBODYS: Final = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    """For files that may be anything: nothing is waited for, whatever lies there."""

    pread = os.pread
    pwrite = os.pwrite

    def replace(old: str, new: str) -> None:
        """Give a file the name of another. Its directory has still to be made durable."""
        os.replace(old, new)  # noqa: PTH105 - as what stands for it on Windows

    if sys.platform == "darwin":

        def sync(fd: int) -> None:
            """Return once what was written is on the disk. `OSError`.

            On macOS fsync(2) leaves it in the disk's own memory, which a power cut empties;
            its manual names `F_FULLFSYNC` for this. Not every file system has that.
            """
            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                    raise
                os.fsync(fd)

    else:

        def sync(fd: int) -> None:
            """Return once what was written is on the disk. `OSError`."""
            os.fsync(fd)

    def take_lock(fd: int, *, shared: bool = False, wait: bool = False) -> bool:
        """Lock an open file until it is closed; False when another holds it. `OSError`."""
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(fd, how)
        except BlockingIOError:
            return False
        return True
