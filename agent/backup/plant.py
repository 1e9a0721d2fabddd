"""Build the tree of a restore point, taking over whole leaves that have not changed.

A leaf ends where the keys say so, so an unchanged stretch of entries that begins where
a leaf begins is the same leaf: its reference is taken over and nothing is encoded.
"""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from agent.backup.state import Block, make_block
from agent.backup.walk import MARK_BYTES
from protocol.vault.chunk import Kind, Reference, Sealer
from protocol.vault.entry import Entry
from protocol.vault.keys import VaultSecret
from protocol.vault.leaf import LeafWriter
from protocol.vault.node import Root
from protocol.vault.tree import TreeBuilder


class Planter(TreeBuilder):
    """A `TreeBuilder` that also hands out the state block of every leaf."""

    def __init__(
        self,
        secret: VaultSecret,
        put: Callable[[Reference, bytes], None],
        keep: Callable[[Block], None],
    ) -> None:
        super().__init__(Sealer(secret), secret.boundary_key, put)
        self._boundary_key = secret.boundary_key
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
        self.add(parent, entry)

    def take_over(self, block: Block) -> None:
        """Append a whole leaf of the previous tree."""
        if self._leaf.entries or not block.closed:
            for parent, entry, mark in block.entries():
                self.plant(parent, entry, entry.name + b"\0" + mark)
            return
        digest = blake3(block.last_key, key=self._boundary_key).digest(8)
        self._last_key = block.last_key
        self._keep(block)
        self._append(block.node(), block.last_key, int.from_bytes(digest, "little"))
        self.reused_leaves += 1

    def finish(self) -> Root:
        """See `TreeBuilder.finish`."""
        self._closed = False
        return super().finish()

    def _end_leaf(self, bits: int) -> None:
        leaf = self._leaf
        plain, children = leaf.finish()
        reference, stored = self._sealer.seal(Kind.TREE, plain, children)
        self._put(reference, stored)
        self._leaf = LeafWriter()
        root = Root(reference, 0, leaf.entries, leaf.files, leaf.bytes)
        self._keep(
            make_block(
                root,
                self._last_key,
                self._parts,
                self._marks,
                plain,
                children,
                linked=self._linked,
                closed=self._closed,
            )
        )
        self._parts, self._marks, self._run, self._linked = [], [], None, False
        self._append(root, self._last_key, bits)
