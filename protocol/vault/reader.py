"""Read trees: all of one, one directory, one path, or what differs between two.

Nodes come through `fetch`, which is given chunk ids and gives back their stored bytes
in the same order; everything is verified here. Only nodes on the way are asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Opener, Reference
from protocol.vault.content import flat_extents
from protocol.vault.entry import Entry, Extent
from protocol.vault.leaf import Leaf, LeafWriter, decode_leaf
from protocol.vault.node import Item, Root, decode_extents, decode_inner
from protocol.vault.path import below_range, children_prefix, is_path, tree_key

Fetch = Callable[[Sequence[ChunkId]], Iterable[bytes]]
Found = tuple[bytes, Entry]

BATCH: Final = 16
_DATA_LOSS: Final = frozenset({Code.CHUNK_MISSING, Code.CHUNK_DAMAGED, Code.PACK_DAMAGED})


class Inner(NamedTuple):
    """A decoded inner node."""

    level: int
    items: list[Item]

    @property
    def last_key(self) -> bytes:
        """The last key below it."""
        return self.items[-1].last_key


class Piece(NamedTuple):
    """A part of a leaf, written out: the plain leaf of those entries and its children."""

    plain: bytes
    children: tuple[ChunkId, ...]


class Span(NamedTuple):
    """A stretch of a tree: what covers it, in order, and the range of its keys.

    Keys from `low` (included) to `high` (excluded; `None` is the end of the tree).
    """

    nodes: tuple[Root | Piece, ...]
    low: bytes
    high: bytes | None


class ChunkMissingError(SteadError):
    """A tree names a chunk that was not given when it was asked for."""

    code = Code.CHUNK_MISSING

    def __init__(self, chunk: bytes) -> None:
        super().__init__(f"chunk {chunk.hex()} is missing; run `stead vault check`")
        self.chunk = chunk


Lost = Callable[[Root, SteadError], None]
Wanted = Callable[[Root], bool]


class TreeReader:
    """Reads trees of one tenant. Not to be shared between threads.

    Every method raises `ChunkDamagedError` for a node that is not sound, and passes on
    what `fetch` raises. With `lost`, a node that is damaged or missing is told to it with
    the reason and left out, and what lies beside it is read all the same.
    """

    def __init__(self, opener: Opener, fetch: Fetch, lost: Lost | None = None) -> None:
        self._opener = opener
        self._fetch = fetch
        self._lost = lost

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

    def subtree(self, root: Root, path: bytes) -> tuple[Span, ...]:
        """What it takes to read a path and all below it, and nothing else.

        Nodes that lie wholly inside are named; of the leaves at the edges only the
        entries inside are written out. Made for grants, see `protocol.vault.grant`.
        Raises `NotFoundError` when nothing is there.
        """
        if not path:
            return (Span((root,), b"", None),)
        key = tree_key(path)
        spans = (Span((root,), key, key + b"\0"), _below(root, path))
        covered = tuple(
            Span(tuple(self._cover(root, b"", span)), span.low, span.high) for span in spans
        )
        if not any(span.nodes for span in covered):
            raise NotFoundError(f"{path[:200]!r} is not in this restore point")
        return tuple(span for span in covered if span.nodes)

    def _cover(self, node: Root, before: bytes, span: Span) -> Iterator[Root | Piece]:
        opened = next(iter(self.nodes([node])))[1]
        if isinstance(opened, Leaf):
            writer = LeafWriter()
            for parent, entry in inside(opened, span.low, span.high):
                writer.add(parent, entry)
            if writer.entries:
                plain, children = writer.finish()
                yield Piece(plain, tuple(children))
            return
        for item in opened.items:
            if span.high is not None and before >= span.high:
                return
            # Keys of the item lie behind `before`, so a low end just there is inside.
            if before >= span.low and (span.high is None or item.last_key < span.high):
                yield item.node
            elif item.last_key >= span.low:
                yield from self._cover(item.node, before, span)
            before = item.last_key

    def read(self, *spans: Span, wanted: Wanted | None = None) -> Iterator[Found]:
        """The entries of spans, one span after another, each in key order.

        Nodes that `wanted` refuses are not opened, and nothing below them is given.
        """
        for span in spans:
            last = b""
            for name, leaf in self._leaves(span.nodes, span, wanted=wanted):
                if leaf.entries and leaf.first_key <= last:
                    raise ChunkDamagedError(name, "its entries are not behind the others")
                last = leaf.last_key or last
                yield from inside(leaf, span.low, span.high)

    def _leaves(
        self,
        nodes: Sequence[Root | Piece],
        span: Span,
        last_keys: Sequence[bytes] = (),
        wanted: Wanted | None = None,
    ) -> Iterator[tuple[ChunkId | None, Leaf]]:
        """The leaves that may hold keys of the span; `last_keys` are those noted above."""
        noted = {id(node): key for node, key in zip(nodes, last_keys, strict=False)}
        for node, opened in self.nodes(nodes):
            name = node.reference.id if isinstance(node, Root) else None
            if last_keys and opened.last_key != noted[id(node)]:
                raise ChunkDamagedError(name, "its last key was noted as another")
            if isinstance(opened, Inner):
                items = [
                    item
                    for item in within(opened.items, span.low, span.high)
                    if wanted is None or wanted(item.node)
                ]
                yield from self._leaves(
                    [item.node for item in items], span, [item.last_key for item in items], wanted
                )
            else:
                yield name, opened

    def nodes(self, nodes: Sequence[Root | Piece]) -> Iterator[tuple[Root | Piece, Leaf | Inner]]:
        """Fetch and open nodes, `BATCH` at a time."""
        for start in range(0, len(nodes), BATCH):
            batch = nodes[start : start + BATCH]
            wanted = [node.reference.id for node in batch if isinstance(node, Root)]
            given = self._given(wanted)
            for node in batch:
                if isinstance(node, Piece):
                    yield node, decode_leaf(node.plain, node.children)
                    continue
                try:
                    stored = next(given, None)
                    if stored is None:
                        raise ChunkMissingError(node.reference.id)
                    if isinstance(stored, SteadError):
                        raise stored
                    opened = self._open(node, stored)
                except SteadError as error:
                    if self._lost is None or error.code not in _DATA_LOSS:
                        raise
                    self._lost(node, error)
                    continue
                yield node, opened

    def _given(self, wanted: Sequence[ChunkId]) -> Iterator[bytes | SteadError]:
        """What `fetch` gives; with `lost`, one by one where it does not give all."""
        if self._lost is None or not wanted:
            return iter(self._fetch(wanted) if wanted else ())
        try:
            return iter(list(self._fetch(wanted)))
        except SteadError as error:
            if error.code not in _DATA_LOSS:
                raise
        return map(self._alone, wanted)

    def _alone(self, identity: ChunkId) -> bytes | SteadError:
        try:
            found = list(self._fetch([identity]))
        except SteadError as error:
            if error.code not in _DATA_LOSS:
                raise
            return error
        return found[0] if found else ChunkMissingError(identity)

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
        return flat_extents(extents, depth, self.extent_list)

    def extent_list(self, reference: Reference) -> tuple[int, tuple[Extent, ...]]:
        """The depth and the extents of one list."""
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
    return Span((root,), *below_range(path))


def inside(leaf: Leaf, low: bytes, high: bytes | None) -> Iterable[Found]:
    """The entries of a leaf whose keys are from `low` to `high`, see `Span`."""
    if leaf.first_key >= low and (high is None or leaf.last_key < high):
        return leaf.entries
    # A leaf that was decoded is in order, so a single entry costs a few comparisons.
    start = bisect_left(leaf.entries, low, key=_key)
    end = None if high is None else bisect_left(leaf.entries, high, lo=start, key=_key)
    return leaf.entries[start:end]


def _key(found: Found) -> bytes:
    parent, entry = found
    return children_prefix(parent) + entry.name


def within(items: Sequence[Item], low: bytes, high: bytes | None) -> Iterator[Item]:
    """The items whose nodes may hold keys from `low` to `high`, see `Span`."""
    start = b""
    for item in items:
        if high is not None and start >= high:
            return
        if item.last_key >= low:
            yield item
        start = item.last_key
