"""Compare two trees, or a part of them, by opening only the nodes that differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.vault.chunk import ChunkDamagedError
from protocol.vault.entry import Entry
from protocol.vault.leaf import Leaf
from protocol.vault.node import Root
from protocol.vault.path import children_prefix
from protocol.vault.reader import BATCH, Found, Inner, TreeReader, Wanted, inside, within

KeyRange = tuple[bytes, bytes | None]
ALL: KeyRange = (b"", None)


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
    keys: KeyRange
    wanted: Wanted | None
    last: bytes = b""
    _ahead: dict[Root, Leaf | Inner] = field(default_factory=dict)

    def open(self, other: _Side) -> None:
        """Replace the node at the top by what is in it.

        Nodes that follow and that the other side has not got are fetched along with it.
        """
        node = self.left[-1]
        assert isinstance(node, Root)
        if node not in self._ahead:
            self._ahead = {
                one: opened
                for one, opened in self.reader.nodes(self._batch(node, other))
                if isinstance(one, Root)
            }
        self.left.pop()
        opened = self._ahead.pop(node, None)
        if isinstance(opened, Leaf):
            self.left.extend(reversed(list(inside(opened, *self.keys))))
        elif opened is not None:
            items = list(within(opened.items, *self.keys))
            wanted = self.wanted
            self.left.extend(
                item.node for item in reversed(items) if wanted is None or wanted(item.node)
            )

    def _batch(self, first: Root, other: _Side) -> list[Root]:
        shared = {one.reference.id for one in other.left if isinstance(one, Root)}
        batch = [first]
        for one in reversed(self.left[-BATCH:-1]):
            if not isinstance(one, Root) or one.level != first.level:
                break
            if one.reference.id not in shared:
                batch.append(one)
        return batch

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


def diff(
    reader: TreeReader,
    old: Root,
    new: Root,
    *,
    keys: KeyRange = ALL,
    wanted: Wanted | None = None,
    new_reader: TreeReader | None = None,
) -> Iterator[Change]:
    """What changed from `old` to `new`, in key order. Raises what the readers raise.

    Only entries whose keys are from `keys[0]` to `keys[1]` (excluded; None is the end) are
    compared. `wanted` may refuse nodes that hold nothing of interest: what is below them is
    left out of both trees, so it must judge equal nodes alike, and a change of which one
    side alone was refused is told as an addition or a removal. `new_reader` reads `new`
    where that was made with another secret.
    """
    before = _Side(reader, [old], keys, wanted)
    after = _Side(new_reader or reader, [new], keys, wanted)
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
                before.open(after)
            if right_level >= left_level:
                after.open(before)
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
