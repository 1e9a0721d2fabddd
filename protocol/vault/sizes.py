"""How large writers make chunks. Apart from what cuts, since readers need no cutter."""

from __future__ import annotations

from typing import Final, NamedTuple

_KIB = 1024


class Sizes(NamedTuple):
    """The least, the mean and the greatest length of a chunk, in bytes."""

    min_bytes: int
    avg_bytes: int
    max_bytes: int


BIG: Final = Sizes(256 * _KIB, 1024 * _KIB, 4096 * _KIB)
SMALL: Final = Sizes(64 * _KIB, 256 * _KIB, 1024 * _KIB)
SMALL_FILE_BYTES: Final = 256 * _KIB
