"""What changed between two inventories, seen by the hashes of their sections.

Pure. What a manifest and its root are is said in `protocol.inventory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.inventory import HASH_BYTES, root_of

__all__ = ["HASH_BYTES", "Changes", "changed", "root_of"]


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of sections, sorted: what is new, what has another body, what is gone."""

    added: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def to_send(self) -> tuple[str, ...]:
        """The sections whose bodies the other side has not got."""
        return tuple(sorted(self.added + self.altered))

    def __bool__(self) -> bool:
        return bool(self.added or self.altered or self.removed)


def changed(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> Changes:
    """What the `new` manifest has that differs from the `old` one.

    >>> changed({"cpu": b"1", "ports": b"1"}, {"cpu": b"2", "users": b"1"})
    Changes(added=('users',), altered=('cpu',), removed=('ports',))
    """
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        altered=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )
