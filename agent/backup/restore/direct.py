"""Write a big file past the page cache, by direct input and output (O_DIRECT of open(2)).

A restore writes more than it will read, and a page that is new to the cache costs more
than what is copied into it, most of all on a virtual machine. Past the cache a restore
also leaves there what the machine works with. The kernel takes such writes from aligned
memory, in whole pages at whole pages of the file; what is left before and after goes
through the cache, and so does everything where the file system has no such writes.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Final

from protocol.vault.chunk import Buffer

LEAST_BYTES: Final = 16 * 1024 * 1024
"""Smaller files are written faster together, in the order that the disk likes."""

BLOCK_BYTES: Final = 8 * 1024 * 1024
_PAGE: Final = 4096
_LEAST_WRITE: Final = 1024 * 1024
"""Less, as between the holes of a sparse file, is not worth a wait for the disk."""

_O_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class Block:
    """Memory for writes of up to `size` bytes; made when it is first needed."""

    def __init__(self, size: int = BLOCK_BYTES) -> None:
        self.size = size
        self._memory: mmap.mmap | None = None

    def view(self) -> memoryview:
        """The memory, which begins at a page."""
        if self._memory is None:
            self._memory = mmap.mmap(-1, self.size)
        return memoryview(self._memory)


class DirectFile:
    """Appends to the empty file `fd`, which stays the caller's; `end` writes what is left.

    One at a time may use a block. Methods raise `OSError`.
    """

    def __init__(self, fd: int, block: Block) -> None:
        self._fd = fd
        self._block = block.view()
        # Where in the file the block belongs: at a page, whenever something is in it.
        self._place = 0
        self._used = 0
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        self._is_direct = bool(_O_DIRECT) and self._switch(_O_DIRECT)

    @property
    def is_direct(self) -> bool:
        """Whether the file system takes direct writes."""
        return self._is_direct

    def write(self, piece: Buffer) -> None:
        """Append; the bytes may reach the file later."""
        left = memoryview(piece)
        if not self._is_direct:
            # Direct writes may have ended with something in the block.
            self._flush()
            self._through_cache(left)
            return
        before = -self._place % _PAGE
        if before and left:
            self._through_cache(left[:before])
            left = left[before:]
        while left:
            taken = min(len(self._block) - self._used, len(left))
            self._block[self._used : self._used + taken] = left[:taken]
            self._used += taken
            left = left[taken:]
            if self._used == len(self._block):
                self._flush()

    def skip(self, length: int) -> None:
        """Leave a hole of so many bytes; one at the end needs ftruncate(2) by the caller."""
        self._flush()
        self._place += length

    def end(self) -> None:
        """Write what is left; the file is one like any other then."""
        self._flush()
        if self._is_direct:
            self._switch(0)

    def _flush(self) -> None:
        used, self._used = self._used, 0
        whole = used - used % _PAGE if used >= _LEAST_WRITE else 0
        written = 0
        while written < whole and self._is_direct:
            try:
                written += os.pwrite(self._fd, self._block[written:whole], self._place + written)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # Its pages or its disk's blocks are larger than ours.
                self._switch(0)
                self._is_direct = False
            if written % _PAGE:
                break
        self._place += written
        if written < used:
            self._through_cache(self._block[written:used])

    def _through_cache(self, left: memoryview) -> None:
        if self._is_direct:
            self._switch(0)
        while left:
            written = os.pwrite(self._fd, left, self._place)
            self._place += written
            left = left[written:]
        if self._is_direct:
            self._is_direct = self._switch(_O_DIRECT)

    def _switch(self, flag: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, self._flags | flag)
        except OSError as error:
            if not flag or error.errno != errno.EINVAL:
                raise
            return False
        return True
