"""Open directories below one directory, and never anywhere else.

Linux' openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS does it in one call. Where
the kernel lacks it, the path is walked name by name without following links, which is
as safe and slower.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import pack
from typing import Final

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPENAT2: Final = 437
_RESOLVE: Final = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS of <linux/openat2.h>."""

# The number is the same on every architecture that Linux got after 2020, and on these.
_HAS_OPENAT2 = platform.machine() in ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x")


class Beneath:
    """A directory and the way into what is below it. `close` it."""

    def __init__(self, path: bytes) -> None:
        """Open the directory itself; links on the way to it are its caller's choice."""
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._libc = ctypes.CDLL(None, use_errno=True) if _HAS_OPENAT2 else None
        self._how = ctypes.create_string_buffer(pack("<QQQ", DIRECTORY, 0, _RESOLVE), 24)

    def open(self, path: bytes) -> int:
        """A descriptor of the directory at a relative path; raises `OSError`."""
        if not path:
            return os.dup(self.fd)
        if self._libc is not None and len(path) < 4096:
            fd = self._libc.syscall(_OPENAT2, self.fd, path, self._how, 24)
            if fd >= 0:
                return int(fd)
            number = ctypes.get_errno()
            if number not in (errno.ENOSYS, errno.EPERM):
                raise OSError(number, os.strerror(number))
            # A kernel or a sandbox without the call: the long way from now on.
            self._libc = None
        return self._step_by_step(path)

    @contextmanager
    def opened(self, path: bytes) -> Iterator[int]:
        """The same for the length of a `with`."""
        fd = self.open(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def make(self, path: bytes) -> int:
        """The same, making every directory on the way that is missing."""
        return self._step_by_step(path, make=True)

    def _step_by_step(self, path: bytes, *, make: bool = False) -> int:
        fd = os.dup(self.fd)
        for name in path.split(b"/"):
            if name in (b"", b".", b".."):
                os.close(fd)
                raise OSError(errno.EXDEV, "the path leads out of the directory")
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=fd)
                below = os.open(name, DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def close(self) -> None:
        """Close the directory."""
        os.close(self.fd)


def stat_of(top: bytes, path: bytes) -> os.stat_result:
    """What is at a relative path below a directory; no link is followed. Raises `OSError`."""
    parent, _, name = path.rpartition(b"/")
    beneath = Beneath(top)
    try:
        with beneath.opened(parent) as directory:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
    finally:
        beneath.close()
