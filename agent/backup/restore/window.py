"""What a restore writes at a time, and the chunks that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from agent.backup.restore.fetch import Call, Plain
from protocol.vault.chunk import ChunkId, Reference
from protocol.vault.entry import Entry, Extent

LARGE_BYTES = 128 * 1024
"""What a write has on average where the thread that writes hardly needs the interpreter."""


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
    """Items, and the chunks that they need: `size` bytes of them, and the calls that ask.

    `opening` are the calls whose answers are being read and opened already.
    """

    items: list[Item] = field(default_factory=list)
    wanted: dict[ChunkId, Reference] = field(default_factory=dict)
    size: int = 0
    calls: list[Call] = field(default_factory=list)
    opening: list[Future[Plain]] = field(default_factory=list)

    @property
    def is_large(self) -> bool:
        """Whether to write it takes long writes instead of many."""
        return self.size >= len(self.items) * LARGE_BYTES
