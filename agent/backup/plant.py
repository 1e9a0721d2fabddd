"""Build the tree of a restore point, taking over whole leaves that have not changed.

A leaf ends where the keys say so, so an unchanged stretch of entries that begins where
a leaf begins is the same leaf: its reference is taken over and nothing is encoded.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.backup.state import Block, make_block
from agent.backup.walk import MARK_BYTES
from protocol.vault.chunk import Reference, Sealer
from protocol.vault.entry import Entry
from protocol.vault.keys import VaultSecret
from protocol.vault.node import Root
from protocol.vault.tree import FinishedLeaf, TreeBuilder


class Planter:
    """Builds a tree, and hands out the state block of every leaf."""

    def __init__(
        self,
        secret: VaultSecret,
        put: Callable[[Reference, bytes], None],
        keep: Callable[[Block], None],
    ) -> None:
        self._tree = TreeBuilder(Sealer(secret), secret.boundary_key, put, self._leaf_ended)
        self._add = self._tree.add
        self._keep = keep
        self._parts: list[bytes] = []
        self._marks: list[bytes] = []
        self._run: bytes | None = None
        self._linked = False
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
        self._add(parent, entry)

    def take_over(self, block: Block) -> None:
        """Append a whole leaf of the previous tree."""
        if not block.closed or not self._tree.at_leaf_start:
            for parent, entry, mark in block.entries():
                self.plant(parent, entry, entry.name + b"\0" + mark)
            return
        self._keep(block)
        self._tree.add_leaf(block.node(), block.last_key)
        self.reused_leaves += 1

    def finish(self) -> Root:
        """See `TreeBuilder.finish`."""
        self._closed = False
        return self._tree.finish()

    def _leaf_ended(self, leaf: FinishedLeaf) -> None:
        self._keep(
            make_block(
                leaf.root,
                leaf.last_key,
                self._parts,
                self._marks,
                leaf.plain,
                leaf.children,
                linked=self._linked,
                closed=self._closed,
            )
        )
        self._parts, self._marks, self._run, self._linked = [], [], None, False
