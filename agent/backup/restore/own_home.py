"""Leave the agent's own directory out of what is restored, however it is reached.

Its keys, its certificate and its journal are of today: with those of a restore point it
would be a machine of the past, or another one, and carry out orders for a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from protocol.vault.entry import Entry, Kind
from protocol.vault.path import join

LEFT: Final = "the agent's own; it was left as it is"
_DIRECTORY: Final = int(Kind.DIRECTORY)

Found = tuple[bytes, Entry]


def without_own(
    found: Iterable[Found],
    is_own: Callable[[bytes, bytes], bool],
    tell: Callable[[bytes], None],
) -> Iterator[Found]:
    """Entries in key order without what is the agent's own, which `tell` learns.

    `is_own` is asked of a directory's parent and name; all below it is left out as well.
    """
    closed: list[bytes] = []
    for parent, entry in found:
        if closed and any((parent + b"/").startswith(one + b"/") for one in closed):
            continue
        if entry.mode >> 12 == _DIRECTORY and is_own(parent, entry.name):
            closed.append(join(parent, entry.name))
            tell(closed[-1])
            continue
        yield parent, entry
