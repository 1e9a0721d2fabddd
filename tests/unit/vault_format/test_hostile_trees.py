"""Trees that a machine holding the tenant's secret makes to trouble those who read them."""

from __future__ import annotations

import pytest

from protocol.errors import SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Kind, Opener, Reference, Sealer
from protocol.vault.diff import diff
from protocol.vault.entry import Entry, Extent, Owner
from protocol.vault.keys import TenantKey
from protocol.vault.leaf import LeafWriter
from protocol.vault.node import Item, Root, encode_extents, encode_inner
from protocol.vault.reader import ChunkMissingError, TreeReader

SECRET = TenantKey(bytes(32)).secret
OWNER = Owner(0, 0)


class Made:
    """Nodes sealed by hand, whatever is in them."""

    def __init__(self) -> None:
        self.held: dict[ChunkId, bytes] = {}
        self.reader = TreeReader(Opener(SECRET), self.fetch)

    def fetch(self, ids: object) -> list[bytes]:
        assert isinstance(ids, list)
        return [self.held[one] for one in ids if one in self.held]

    def seal(self, made: tuple[bytes, list[ChunkId]]) -> Reference:
        reference, stored = Sealer(SECRET).seal(Kind.TREE, *made)
        self.held[reference.id] = stored
        return reference

    def leaf(self, *names: bytes) -> Root:
        writer = LeafWriter()
        for name in names:
            writer.add(b"", Entry(name, 0o100644, OWNER, 1))
        return Root(self.seal(writer.finish()), 0, len(names), len(names), 0)

    def inner(self, level: int, *items: tuple[bytes, Root]) -> Root:
        nodes = [Item(b"\0" + key, node) for key, node in items]
        entries = sum(node.entries for _, node in items)
        return Root(self.seal(encode_inner(level, nodes)), level, entries, entries, 0)


def test_a_tree_that_folds_back_on_itself_is_refused_at_its_first_repetition() -> None:
    made = Made()
    node = made.leaf(b"a")
    for level in range(1, 16):
        # The lower node twice, reached through two nodes that differ in a key only.
        one = made.inner(level, (b"a", node))
        two = made.inner(level, (b"b", node))
        assert one.reference != two.reference
        node = one
    twice = made.inner(2, *((key, made.inner(1, (key, made.leaf(b"a")))) for key in (b"a", b"b")))
    with pytest.raises(ChunkDamagedError):
        list(made.reader.entries(twice))
    with pytest.raises(ChunkDamagedError):
        list(diff(made.reader, made.leaf(), twice))


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a"), (b"a", b"")])
def test_a_leaf_out_of_order_is_refused(names: tuple[bytes, ...]) -> None:
    made = Made()
    with pytest.raises(ChunkDamagedError):
        list(made.reader.entries(made.leaf(*names)))


def test_what_an_inner_node_notes_has_to_be_true() -> None:
    made = Made()
    leaf = made.leaf(b"a", b"b")
    for wrong in (
        made.inner(1, (b"c", leaf)),
        made.inner(1, (b"b", leaf._replace(entries=3))),
        made.inner(1, (b"b", leaf._replace(entries=0))),
        made.inner(1, (b"b", leaf), (b"a", made.leaf(b"c"))),
        made.inner(2, (b"b", leaf)),
        made.inner(1, (b"b", leaf))._replace(level=2),
        made.inner(1, (b"b", leaf))._replace(entries=5),
        made.inner(0, (b"b", leaf)),
        made.inner(16, (b"b", leaf)),
    ):
        with pytest.raises(ChunkDamagedError):
            list(made.reader.entries(wrong))


def test_a_missing_node_is_named() -> None:
    made = Made()
    root = made.inner(1, (b"a", made.leaf(b"a")), (b"b", made.leaf(b"b")))
    missing = list(made.held)[1]
    del made.held[missing]
    with pytest.raises(ChunkMissingError, match=missing.hex()):
        list(made.reader.entries(root))


@pytest.mark.parametrize(
    "listed", [[(0, 0)], [(0, 50), (0, -1)], [(0, 99)], [(90, 49)], [(-1, 49)], [(0, 49)] * 2]
)
def test_a_list_of_extents_has_to_be_the_one_that_was_noted(listed: list[tuple[int, int]]) -> None:
    made = Made()
    chunk = Reference(ChunkId(bytes(32)), bytes(32), 100, bytes(16))
    extents = [Extent(chunk, offset, length) for offset, length in listed]
    reference = made.seal(encode_extents(0, extents))
    with pytest.raises(SteadError):
        list(made.reader.extents((Extent(reference, 0, 49),), 1))


def test_lists_of_extents_cannot_be_deeper_than_they_say() -> None:
    made = Made()
    reference = made.seal(encode_extents(1, [Extent(None, 0, 1)]))
    with pytest.raises(SteadError):
        list(made.reader.extents((Extent(reference, 0, 1),), 1))
    with pytest.raises(SteadError):
        list(made.reader.extents((Extent(None, 0, 1),), 1))
