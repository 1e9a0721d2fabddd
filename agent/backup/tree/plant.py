"""Build the tree of a restore point, taking over whole nodes that have not changed.

A node ends where the keys say so, so an unchanged stretch of entries that begins where
a node begins is the same node: its reference is taken over and nothing is encoded.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.backup.select.walk import MARK_BYTES
from agent.backup.tree.nodes import Block
from agent.backup.tree.state import Previous, StateWriter
from protocol.vault.chunk import Reference, Sealer
from protocol.vault.entry import Entry
from protocol.vault.keys import VaultSecret
from protocol.vault.node import Root
from protocol.vault.tree import FinishedInner, FinishedLeaf, TreeBuilder


class Planter:
    """Builds a tree, and beside it the blocks of the state. `top` is the last of them."""

    def __init__(
        self,
        secret: VaultSecret,
        put: Callable[[Reference, bytes], None],
        state: StateWriter,
        previous: Previous,
    ) -> None:
        self._tree = TreeBuilder(
            Sealer(secret), secret.boundary_key, put, self._leaf_ended, self._inner_ended
        )
        self._add = self._tree.add
        self._state = state
        self._previous = previous
        # Blocks by level that no inner node holds yet.
        self._blocks: list[list[Block]] = [[]]
        self._parts: list[bytes] = []
        self._marks: list[bytes] = []
        self._run: bytes | None = None
        self._linked = False
        self._streamed = 0
        self._closed = True
        self.reused_leaves = 0

    def plant(self, parent: bytes, entry: Entry, line: bytes, *, linked: bool = False) -> None:
        """Append an entry and what is remembered of it."""
        if parent != self._run:
            self._parts.append(b"/" + parent + b"\0")
            self._run = parent
        self._parts.append(line)
        self._marks.append(line[-MARK_BYTES:])
        if linked:
            self._linked = True
        if entry.streams:
            self._streamed += sum(stream.size for stream in entry.streams)
        self._add(parent, entry)

    def take_over(self, block: Block) -> None:
        """Append a whole node of the previous tree, or what is in it where that cannot be."""
        node = block.node()
        fits = block.closed and self._tree.at_start_of(node.level)
        if fits and (not node.level or self._state.shares):
            self._keep(self._state.kept(block), node.level)
            self._tree.add_node(node, block.last_key)
            self.reused_leaves += not node.level
        elif node.level:
            for below in self._previous.below(block):
                self.take_over(below)
        else:
            for parent, entry, mark in self._previous.entries(block):
                linked = entry.link_group is not None
                self.plant(parent, entry, entry.name + b"\0" + mark, linked=linked)

    def finish(self) -> tuple[Root, Block]:
        """The root, see `TreeBuilder.finish`, and its block."""
        self._closed = False
        root = self._tree.finish()
        return root, self._blocks[root.level][-1]

    def _keep(self, block: Block, level: int) -> None:
        while len(self._blocks) <= level:
            self._blocks.append([])
        self._blocks[level].append(block)

    def _leaf_ended(self, leaf: FinishedLeaf) -> None:
        block = self._state.leaf(
            leaf.root,
            leaf.last_key,
            self._parts,
            self._marks,
            leaf.plain,
            leaf.children,
            linked=self._linked,
            closed=self._closed,
            streamed=self._streamed,
        )
        self._keep(block, 0)
        self._parts, self._marks, self._run, self._linked = [], [], None, False
        self._streamed = 0

    def _inner_ended(self, inner: FinishedInner) -> None:
        level = inner.root.level
        below, self._blocks[level - 1] = self._blocks[level - 1], []
        self._keep(
            self._state.branch(inner.root, inner.last_key, below, closed=inner.closed), level
        )
