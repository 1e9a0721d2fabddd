"""Build the tree of a restore point from sorted entries, in one pass.

Where a node ends depends on a keyed hash of the last key in it and on nothing else,
unless a node grows too heavy. So equal stretches of two trees are equal nodes, whatever
happened around them, and an edit rewrites only the nodes on its way to the root.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

from protocol.errors import InvalidError
from protocol.vault.chunk import ChunkId, Kind, Reference, Sealer
from protocol.vault.entry import Entry, check_entry
from protocol.vault.leaf import LeafWriter
from protocol.vault.node import MAX_LEVEL, Item, Root, encode_inner
from protocol.vault.path import children_prefix, is_path

Put = Callable[[Reference, bytes], None]


class FinishedLeaf(NamedTuple):
    """A leaf that was just finished: how it is reached, where it ends, what is in it."""

    root: Root
    last_key: bytes
    plain: bytes
    children: Sequence[ChunkId]


class FinishedInner(NamedTuple):
    """An inner node that was just finished: how it is reached, where it ends.

    `closed`: it ended by the rules of the tree, not because the tree did.
    """

    root: Root
    last_key: bytes
    closed: bool


OnLeaf = Callable[[FinishedLeaf], None]
OnInner = Callable[[FinishedInner], None]

LEAF_BITS: Final = 9
INNER_BITS: Final = 7
MAX_LEAF_WEIGHT: Final = 512 * 1024
MAX_INNER_WEIGHT: Final = 512 * 1024
ITEM_WEIGHT: Final = 128
_LEAF_MASK: Final = (1 << LEAF_BITS) - 1


class TreeBuilder:
    """Takes entries in key order and hands finished nodes to `put`, children first.

    `on_leaf` is told of every leaf when it is finished, before `add` or `finish` return,
    and `on_inner` of every inner node: its items are all nodes of the level below that
    were finished or taken over since the last of its own level. `boundary_key` is 32
    bytes, see `VaultSecret.boundary_key`. Memory holds one node a level. Not to be shared
    between threads.
    """

    def __init__(
        self,
        sealer: Sealer,
        boundary_key: bytes,
        put: Put,
        on_leaf: OnLeaf | None = None,
        on_inner: OnInner | None = None,
    ) -> None:
        self._sealer = sealer
        self._on_leaf = on_leaf
        self._on_inner = on_inner
        self._finishing = False
        self._hash = blake3(key=boundary_key)
        self._put = put
        self._leaf = LeafWriter()
        self._inner: list[list[Item]] = []
        self._weights: list[int] = []
        self._last_key = b""
        self._parent: bytes | None = None
        self._prefix = b""

    def add(self, parent: bytes, entry: Entry) -> None:
        """Append the entry of a directory with the path `parent`.

        The root is the entry without a name of the parent `b""` and comes first. Raises
        `InvalidError` when the entry cannot exist or is not behind the one before it.
        """
        if parent != self._parent:
            if not is_path(parent):
                raise InvalidError(f"{parent[:200]!r} cannot be a path of a tree")
            self._parent = parent
            self._prefix = children_prefix(parent)
        key = self._prefix + entry.name
        if key <= self._last_key:
            raise InvalidError(f"the entry {entry.name[:200]!r} comes out of order")
        check_entry(entry, is_root=key == b"\0")
        leaf = self._leaf
        leaf.add(parent, entry)
        self._last_key = key
        digest = self._hash
        digest.update(key)
        bits = int.from_bytes(digest.digest(8), "little")
        digest.reset()
        if not bits & _LEAF_MASK or leaf.weight >= MAX_LEAF_WEIGHT:
            self._end_leaf(bits)

    def at_start_of(self, level: int) -> bool:
        """Whether the next entry begins a node of this level and of all below it."""
        return not self._leaf.entries and not any(self._inner[:level])

    def add_node(self, root: Root, last_key: bytes) -> None:
        """Append a whole node of another tree of the same boundary key, held already.

        It has to be a node that ended by the rules of the tree, not because that tree
        did. Then what is made is the tree of all entries, whatever was taken over. Raises
        `InvalidError` when a node is open or it is not behind what came.
        """
        if not self.at_start_of(root.level) or last_key <= self._last_key:
            raise InvalidError("a node cannot be taken over here")
        self._last_key = last_key
        self._parent = None
        self._append(root, last_key, self._bits(last_key))

    # `add` has these lines itself: a call for every entry is felt.
    def _bits(self, key: bytes) -> int:
        digest = self._hash
        digest.update(key)
        bits = int.from_bytes(digest.digest(8), "little")
        digest.reset()
        return bits

    def _end_leaf(self, bits: int) -> None:
        leaf = self._leaf
        plain, children = leaf.finish()
        reference, stored = self._sealer.seal(Kind.TREE, plain, children)
        self._put(reference, stored)
        self._leaf = LeafWriter()
        root = Root(reference, 0, leaf.entries, leaf.files, leaf.bytes)
        if self._on_leaf is not None:
            self._on_leaf(FinishedLeaf(root, self._last_key, plain, children))
        self._append(root, self._last_key, bits)

    def _append(self, node: Root, last_key: bytes, bits: int) -> None:
        level = node.level + 1
        if level > MAX_LEVEL:
            raise InvalidError("a tree is too large for this format")
        while level > len(self._inner):
            self._inner.append([])
            self._weights.append(0)
        self._inner[level - 1].append(Item(last_key, node))
        self._weights[level - 1] += len(last_key) + ITEM_WEIGHT
        mask = (1 << (LEAF_BITS + INNER_BITS * level)) - 1
        if not bits & mask or self._weights[level - 1] >= MAX_INNER_WEIGHT:
            self._end_inner(level, bits)

    def _end_inner(self, level: int, bits: int) -> None:
        items = self._inner[level - 1]
        plain, children = encode_inner(level, items)
        reference, stored = self._sealer.seal(Kind.TREE, plain, children)
        self._put(reference, stored)
        totals = [sum(item.node[place] for item in items) for place in (2, 3, 4)]  # type: ignore[misc]
        last_key = items[-1].last_key
        self._inner[level - 1] = []
        self._weights[level - 1] = 0
        root = Root(reference, level, *totals)
        if self._on_inner is not None:
            self._on_inner(FinishedInner(root, last_key, not self._finishing))
        self._append(root, last_key, bits)

    def finish(self) -> Root:
        """Seal what is open and return the root; an empty tree is one empty leaf."""
        never = (1 << 64) - 1
        self._finishing = True
        if self._leaf.entries or not self._inner:
            self._end_leaf(never)
        level = 1
        while True:
            items = self._inner[level - 1]
            if level == len(self._inner) and len(items) == 1:
                return items[0].node
            if items:
                self._end_inner(level, never)
            level += 1
