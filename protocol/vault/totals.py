"""Sum up what lies below a directory without reading it.

Inner nodes carry the totals of what is below them, so only the nodes at the edges of a
directory are opened: what it costs follows the depth of the tree, not its size.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.vault.entry import Kind
from protocol.vault.leaf import Leaf
from protocol.vault.node import Root
from protocol.vault.path import below_range
from protocol.vault.reader import TreeReader, inside

_FILE = int(Kind.FILE)


class Sum(NamedTuple):
    """Entries, those of them that are files, and the sizes of these.

    Each name of a file with several hard links counts.
    """

    entries: int = 0
    files: int = 0
    bytes: int = 0

    def plus(self, other: Sum) -> Sum:
        """Both together."""
        return Sum(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def sum_below(reader: TreeReader, root: Root, path: bytes) -> Sum:
    """What lies below a directory at any depth, itself excluded; raises what `reader` does."""
    low, high = below_range(path)
    # The key of the root itself is one NUL, before all others.
    return _sum(reader, root, b"", low or b"\0\x01", high)


def _sum(reader: TreeReader, node: Root, before: bytes, low: bytes, high: bytes | None) -> Sum:
    total = Sum()
    for _, opened in reader.nodes([node]):
        if isinstance(opened, Leaf):
            found = [entry for _, entry in inside(opened, low, high)]
            files = [entry.size for entry in found if entry.mode >> 12 == _FILE]
            return Sum(len(found), len(files), sum(files))
        for item in opened.items:
            if high is not None and before >= high:
                break
            if before >= low and (high is None or item.last_key < high):
                total = total.plus(Sum(*item.node[2:]))
            elif item.last_key >= low:
                total = total.plus(_sum(reader, item.node, before, low, high))
            before = item.last_key
    return total
