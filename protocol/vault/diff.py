"""Compare two trees by opening only the nodes that differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from protocol.vault.chunk import ChunkDamagedError
from protocol.vault.entry import Entry
from protocol.vault.leaf import Leaf
from protocol.vault.node import Root
from protocol.vault.path import children_prefix
from protocol.vault.reader import Found, TreeReader


class Change(NamedTuple):
    """What became of one path: `old` is None when it was added, `new` when removed."""

    parent: bytes
    old: Entry | None
    new: Entry | None


@dataclass(slots=True)
class _Side:
    """What is left of a tree, the next piece last: nodes not opened, or entries."""

    reader: TreeReader
    left: list[Root | Found]
    last: bytes = b""

    def open(self) -> None:
        """Replace the node at the top by what is in it."""
        node = self.left.pop()
        assert isinstance(node, Root)
        opened = next(iter(self.reader.nodes([node])))[1]
        if isinstance(opened, Leaf):
            self.left.extend(reversed(opened.entries))
        else:
            self.left.extend(item.node for item in reversed(opened.items))

    def key(self) -> bytes | None:
        """The key of the entry at the top."""
        found = self.top()
        if found is None or isinstance(found, Root):
            return None
        return children_prefix(found[0]) + found[1].name

    def take(self) -> Found:
        """Remove the entry at the top, which has to be behind the one before it."""
        key = self.key()
        found = self.left.pop()
        assert not isinstance(found, Root)
        if key is None or key <= self.last:
            raise ChunkDamagedError(None, "a tree is not sorted")
        self.last = key
        return found

    def top(self) -> Root | Found | None:
        """What comes next."""
        return self.left[-1] if self.left else None


def diff(reader: TreeReader, old: Root, new: Root) -> Iterator[Change]:
    """What changed from `old` to `new`, in key order. Raises what the reader raises."""
    before, after = _Side(reader, [old]), _Side(reader, [new])
    while True:
        left, right = before.top(), after.top()
        if left is None and right is None:
            return
        left_level = left.level if isinstance(left, Root) else -1
        right_level = right.level if isinstance(right, Root) else -1
        if left_level >= 0 or right_level >= 0:
            if left_level == right_level:
                assert isinstance(left, Root)
                assert isinstance(right, Root)
                if left.reference.id == right.reference.id:
                    before.left.pop()
                    after.left.pop()
                    continue
            if left_level >= right_level:
                before.open()
            if right_level >= left_level:
                after.open()
            continue
        yield from _entries(before, after)


def _entries(before: _Side, after: _Side) -> Iterator[Change]:
    """Compare the next entries, neither of which is inside an unopened node."""
    old_key, new_key = before.key(), after.key()
    if new_key is None or (old_key is not None and old_key < new_key):
        parent, entry = before.take()
        yield Change(parent, entry, None)
    elif old_key is None or new_key < old_key:
        parent, entry = after.take()
        yield Change(parent, None, entry)
    else:
        (parent, old), (_, new) = before.take(), after.take()
        if old != new:
            yield Change(parent, old, new)
