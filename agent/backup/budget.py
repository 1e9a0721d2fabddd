"""Keep the sizes of a restore point's files within what it can count.

A hole costs nobody anything, nor does another name of a file. So anybody can make a file of
8 EiB, and totals are signed as 63 bits: two such files would keep a machine from being backed
up at all. What takes room on a disk is never refused: its sum cannot be that large.
"""

from __future__ import annotations

import os
from typing import Final

from protocol.errors import Code, SteadError

MOST_BYTES: Final = 1 << 60
"""Of all holes and further names, those of the tree before included: far below 63 bits."""

MOST_OF_ONE: Final = 1 << 50
_BLOCK: Final = 512


class TooLongError(SteadError):
    """A file with more holes than a restore point can count."""

    code = Code.LIMIT

    def __init__(self, size: int) -> None:
        super().__init__(
            f"it says to have {size:,} bytes and takes no room for them: holes of one file are "
            f"counted up to {MOST_OF_ONE:,} bytes, those of all files up to {MOST_BYTES:,}"
        )


class Budget:
    """How much may still be counted that takes no room; `used` is what the tree before has."""

    def __init__(self, used: int = 0) -> None:
        self._used = used

    def take(self, stat: os.stat_result, *, again: bool = False) -> None:
        """Count the holes of a file, or all of it `again` for another name.

        Raises `TooLongError`, and counts nothing then.
        """
        blocks = getattr(stat, "st_blocks", None)
        held = stat.st_size if blocks is None else blocks * _BLOCK
        claimed = stat.st_size if again else stat.st_size - held
        if claimed <= 0:
            return
        if stat.st_size - held > MOST_OF_ONE or self._used + claimed > MOST_BYTES:
            raise TooLongError(stat.st_size)
        self._used += claimed
