"""Read trees: all of one, one directory, one path, or what differs between two.

Nodes come through `fetch`, which is given chunk ids and gives back their stored bytes
in the same order; everything is verified here. Only nodes on the way are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Opener, Reference
from protocol.vault.content import flat_extents
from protocol.vault.entry import Entry, Extent
from protocol.vault.leaf import Leaf, decode_leaf
from protocol.vault.node import Item, Root, decode_extents, decode_inner
from protocol.vault.path import below_prefix, children_prefix, is_path, tree_key

Fetch = Callable[[Sequence[ChunkId]], Iterable[bytes]]
Found = tuple[bytes, Entry]

BATCH: Final = 16


class Inner(NamedTuple):
    """A decoded inner node."""

    level: int
    items: list[Item]


class Span(NamedTuple):
    """A stretch of a tree: the nodes that cover it, and the range of its keys.

    Keys from `low` (included) to `high` (excluded; `None` is the end of the tree).
    """

    nodes: tuple[Root, ...]
    low: bytes
    high: bytes | None


class ChunkMissingError(SteadError):
    """A tree names a chunk that was not given when it was asked for."""

    code = Code.CHUNK_MISSING

    def __init__(self, chunk: bytes) -> None:
        super().__init__(f"chunk {chunk.hex()} is missing; run `stead vault check`")
        self.chunk = chunk


class TreeReader:
    """Reads trees of one tenant. Not to be shared between threads.

    Every method raises `ChunkDamagedError` for a node that is not sound, and passes on
    what `fetch` raises.
    """

    def __init__(self, opener: Opener, fetch: Fetch) -> None:
        self._opener = opener
        self._fetch = fetch

    def entries(self, root: Root) -> Iterator[Found]:
        """All entries as (path of the directory, entry), in key order."""
        return self.read(Span((root,), b"", None))

    def list_directory(self, root: Root, path: bytes) -> Iterator[Found]:
        """The direct children of a directory, sorted by name; none when it is no directory."""
        _check_path(path)
        prefix = children_prefix(path)
        return self.read(Span((root,), prefix + b"\x01", prefix[:-1] + b"\x01"))

    def below(self, root: Root, path: bytes) -> Iterator[Found]:
        """Everything below a directory, at any depth, in key order; not itself."""
        return self.read(_below(root, path))

    def get(self, root: Root, path: bytes) -> Entry:
        """The entry at a path; `NotFoundError` when there is none."""
        key = tree_key(path)
        for _, entry in self.read(Span((root,), key, key + b"\0")):
            return entry
        raise NotFoundError(f"{path[:200]!r} is not in this restore point")

    def subtree(self, root: Root, path: bytes) -> Span:
        """The fewest nodes that cover everything below a directory.

        Inner nodes that lie half outside are opened; a leaf at the edge is named whole,
        so a capability made of these nodes also names what its edge leaves hold beside.
        """
        span = _below(root, path)
        nodes: list[Root] = []
        self._cover(root, b"", span, nodes)
        return Span(tuple(nodes), span.low, span.high)

    def _cover(self, node: Root, before: bytes, span: Span, nodes: list[Root]) -> None:
        stored = self._one(node)
        if isinstance(stored, Leaf):
            nodes.append(node)
            return
        for item in _within(stored.items, span):
            position = stored.items.index(item)
            start = stored.items[position - 1].last_key if position else before
            inside = start >= span.low and (span.high is None or item.last_key < span.high)
            if inside or item.node.level == 0:
                nodes.append(item.node)
            else:
                self._cover(item.node, start, span, nodes)

    def read(self, span: Span) -> Iterator[Found]:
        """The entries of a span, in key order."""
        low, high = span.low, span.high
        last = b""
        for node, leaf in self._leaves(span.nodes, span):
            if leaf.entries and leaf.first_key <= last:
                raise ChunkDamagedError(node.reference.id, "its entries are not behind the others")
            last = leaf.last_key or last
            if leaf.first_key >= low and (high is None or leaf.last_key < high):
                yield from leaf.entries
                continue
            for parent, entry in leaf.entries:
                key = children_prefix(parent) + entry.name
                if key >= low and (high is None or key < high):
                    yield parent, entry

    def _leaves(self, nodes: Sequence[Root], span: Span) -> Iterator[tuple[Root, Leaf]]:
        for node, opened in self.nodes(nodes):
            if isinstance(opened, Leaf):
                yield node, opened
                continue
            yield from self._leaves([item.node for item in _within(opened.items, span)], span)

    def nodes(self, nodes: Sequence[Root]) -> Iterator[tuple[Root, Leaf | Inner]]:
        """Fetch and open nodes, `BATCH` at a time."""
        for start in range(0, len(nodes), BATCH):
            batch = nodes[start : start + BATCH]
            given = iter(self._fetch([node.reference.id for node in batch]))
            for node in batch:
                stored = next(given, None)
                if stored is None:
                    raise ChunkMissingError(node.reference.id)
                yield node, self._open(node, stored)

    def _one(self, node: Root) -> Leaf | Inner:
        return next(iter(self.nodes([node])))[1]

    def _open(self, node: Root, stored: bytes) -> Leaf | Inner:
        plain, children = self._opener.open_tree(stored, node.reference)
        opened: Leaf | Inner
        try:
            if node.level == 0:
                opened = decode_leaf(plain, children)
                level, entries = 0, len(opened.entries)
            else:
                level, items = decode_inner(plain, children)
                opened, entries = Inner(level, items), sum(item.node.entries for item in items)
        except InvalidError as error:
            raise ChunkDamagedError(node.reference.id, str(error)) from error
        if level != node.level or entries != node.entries:
            raise ChunkDamagedError(
                node.reference.id, "its level or its totals were noted as others"
            )
        return opened

    def extents(self, extents: Sequence[Extent], depth: int) -> Iterator[Extent]:
        """The extents of a file or a stream, with lists of extents resolved."""
        return flat_extents(extents, depth, self._extent_list)

    def _extent_list(self, reference: Reference) -> tuple[int, tuple[Extent, ...]]:
        stored = next(iter(self._fetch([reference.id])), None)
        if stored is None:
            raise ChunkMissingError(reference.id)
        plain, children = self._opener.open_tree(stored, reference)
        try:
            return decode_extents(plain, children)
        except InvalidError as error:
            raise ChunkDamagedError(reference.id, str(error)) from error


def _check_path(path: bytes) -> None:
    if not is_path(path):
        raise InvalidError(f"{path[:200]!r} cannot be a path of a tree")


def _below(root: Root, path: bytes) -> Span:
    _check_path(path)
    prefix = below_prefix(path)
    return Span((root,), prefix, prefix[:-1] + b"\x01" if prefix else None)


def _within(items: Sequence[Item], span: Span) -> Iterator[Item]:
    """The items whose nodes may hold keys of the span."""
    start = b""
    for item in items:
        if span.high is not None and start >= span.high:
            return
        if item.last_key >= span.low:
            yield item
        start = item.last_key
