"""A tree reader that keeps the nodes it opened last.

Restore points of one tenant share most of their nodes, so whoever looks at many of them
opens each shared node once. A node is known by its whole reference: what was verified
once for a reference holds for that reference.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from protocol.vault.chunk import Opener, Reference
from protocol.vault.entry import Extent
from protocol.vault.leaf import Leaf
from protocol.vault.node import Root
from protocol.vault.reader import BATCH, Fetch, Inner, Lost, Piece, TreeReader

KEPT_NODES: Final = 128
"""About 50 MB where every node is a full leaf."""

KEPT_LISTS: Final = 16

ExtentList = tuple[int, tuple[Extent, ...]]


class CachedReader(TreeReader):
    """See `TreeReader` and the module; `kept` is the number of nodes in memory."""

    def __init__(
        self, opener: Opener, fetch: Fetch, lost: Lost | None = None, *, kept: int = KEPT_NODES
    ) -> None:
        super().__init__(opener, fetch, lost)
        self._limit = max(kept, BATCH)
        self._kept: OrderedDict[Root, Leaf | Inner] = OrderedDict()
        self._lists: OrderedDict[Reference, ExtentList] = OrderedDict()

    def extent_list(self, reference: Reference) -> ExtentList:
        """See `TreeReader.extent_list`."""
        found = self._lists.get(reference)
        if found is None:
            found = self._lists[reference] = super().extent_list(reference)
            if len(self._lists) > KEPT_LISTS:
                self._lists.popitem(last=False)
        return found

    def nodes(self, nodes: Sequence[Root | Piece]) -> Iterator[tuple[Root | Piece, Leaf | Inner]]:
        """See `TreeReader.nodes`; only what is not at hand is fetched."""
        for start in range(0, len(nodes), BATCH):
            batch = nodes[start : start + BATCH]
            opened: dict[Root | Piece, Leaf | Inner] = {
                node: self._kept[node]
                for node in batch
                if isinstance(node, Root) and node in self._kept
            }
            opened |= super().nodes([node for node in batch if node not in opened])
            for node in batch:
                found = opened.get(node)
                if found is None:
                    # Lost, and told as such by the reader.
                    continue
                if isinstance(node, Root):
                    self._kept[node] = found
                    self._kept.move_to_end(node)
                    if len(self._kept) > self._limit:
                        self._kept.popitem(last=False)
                yield node, found
