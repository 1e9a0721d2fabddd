"""What a restore writes at a time, and the chunks that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.backup.fetch import Call
from protocol.vault.chunk import ChunkId, Reference
from protocol.vault.entry import Entry, Extent


@dataclass(slots=True)
class Item:
    """An entry, or a part of a big file: `first` opens it, `last` closes it."""

    parent: bytes
    entry: Entry
    extents: Sequence[Extent]
    first: bool = True
    last: bool = True
    same: bool = False
    doubted: bool = False


@dataclass(slots=True)
class Window:
    """Items, and the chunks that they need: `size` bytes of them, and the calls that ask."""

    items: list[Item] = field(default_factory=list)
    wanted: dict[ChunkId, Reference] = field(default_factory=dict)
    size: int = 0
    calls: list[Call] = field(default_factory=list)
