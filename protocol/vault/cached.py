"""A tree reader that keeps the nodes it opened last.

Restore points of one tenant share most of their nodes, so whoever looks at many of them
opens each shared node once. A node is known by its whole reference: what was verified
once for a reference holds for that reference.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from protocol.vault.chunk import Opener
from protocol.vault.leaf import Leaf
from protocol.vault.node import Root
from protocol.vault.reader import BATCH, Fetch, Inner, Lost, Piece, TreeReader

KEPT_NODES: Final = 128
"""About 50 MB where every node is a full leaf."""


class CachedReader(TreeReader):
    """See `TreeReader` and the module; `kept` is the number of nodes in memory."""

    def __init__(
        self, opener: Opener, fetch: Fetch, lost: Lost | None = None, *, kept: int = KEPT_NODES
    ) -> None:
        super().__init__(opener, fetch, lost)
        self._limit = max(kept, BATCH)
        self._kept: OrderedDict[Root, Leaf | Inner] = OrderedDict()

    def nodes(self, nodes: Sequence[Root | Piece]) -> Iterator[tuple[Root | Piece, Leaf | Inner]]:
        """See `TreeReader.nodes`; only what is not at hand is fetched."""
        for start in range(0, len(nodes), BATCH):
            batch = nodes[start : start + BATCH]
            fresh = dict(super().nodes([node for node in batch if node not in self._kept]))
            opened = {node: self._kept[node] for node in batch if node in self._kept}
            for node in batch:
                found = opened.get(node) or fresh.get(node)
                if found is None:
                    # Lost, and told as such by the reader.
                    continue
                if isinstance(node, Root):
                    self._kept[node] = found
                    self._kept.move_to_end(node)
                    if len(self._kept) > self._limit:
                        self._kept.popitem(last=False)
                yield node, found
