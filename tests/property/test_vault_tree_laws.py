from __future__ import annotations

import random
from collections import deque
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import InvalidError, NotFoundError
from protocol.vault.chunk import Sealer, inspect
from protocol.vault.diff import diff
from protocol.vault.entry import Entry, Extent, Owner
from protocol.vault.grant import Grant, decode_grant, encode_grant
from protocol.vault.node import Root
from protocol.vault.path import join, tree_key
from protocol.vault.tree import FinishedInner, FinishedLeaf, TreeBuilder
from tests.property.vault_trees import (
    NAMES,
    SECRET,
    Found,
    Held,
    in_key_order,
    key_of,
    many_files,
    reference,
    trees,
)

OWNER = Owner(0, 0, "root", "root")
ROOT = Entry(b"", 0o40755, OWNER, 1)


@given(found=trees())
def test_a_tree_gives_back_what_was_put_in(found: list[Found]) -> None:
    held = Held()
    root = held.build(found)
    assert list(held.reader().entries(root)) == found
    assert root.entries == len(found)
    assert root.bytes == sum(entry.size for _, entry in found)


@given(found=trees())
def test_equal_entries_make_equal_trees(found: list[Found]) -> None:
    first, second = Held(), Held()
    assert first.build(found) == second.build(found)
    assert first.chunks == second.chunks


@given(old=trees(), new=trees())
def test_a_diff_is_what_comparing_all_entries_finds(old: list[Found], new: list[Found]) -> None:
    held = Held()
    changes = list(diff(held.reader(), held.build(old), held.build(new)))
    before, after = {key_of(one): one for one in old}, {key_of(one): one for one in new}
    expected = [
        (key, before.get(key, (b"", None))[1], after.get(key, (b"", None))[1])
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    assert [
        (tree_key(join(one.parent, (one.new or one.old or ROOT).name)), one.old, one.new)
        for one in changes
    ] == expected


@given(found=trees())
def test_a_directory_lists_its_direct_children_sorted_by_name(found: list[Found]) -> None:
    held = Held()
    root = held.build(found)
    for path in {parent for parent, _ in found} | {b"", b"absent"}:
        listed = list(held.reader().list_directory(root, path))
        assert listed == [one for one in found if one[0] == path and one[1].name]


@given(found=trees())
def test_a_grant_reads_a_path_and_all_below_it_and_nothing_else(found: list[Found]) -> None:
    held = Held()
    root = held.build(found)
    for path in {join(*[parent, entry.name]) for parent, entry in found} - {b""}:
        grant = decode_grant(encode_grant(Grant(held.reader().subtree(root, path))))
        expected = [
            one
            for one in found
            if (whole := join(one[0], one[1].name)) == path or whole.startswith(path + b"/")
        ]
        assert list(held.reader().read(*grant.spans)) == expected


@given(names=st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=20))
def test_keys_sort_like_a_walk_that_finishes_a_directory_before_it_descends(
    names: list[list[bytes]],
) -> None:
    paths = {b"/".join(parts[:end]) for parts in names for end in range(1, len(parts) + 1)}

    def walk(directory: bytes) -> list[bytes]:
        children = sorted(
            path.rpartition(b"/")[2] for path in paths if path.rpartition(b"/")[0] == directory
        )
        whole = [join(directory, name) for name in children]
        return whole + [below for path in whole for below in walk(path)]

    assert sorted(paths, key=tree_key) == walk(b"")


@pytest.fixture(scope="module")
def wide() -> tuple[Held, list[Found], Root]:
    held, found = Held(), many_files(90_000)
    return held, found, held.build(found)


def test_a_big_tree_is_read_by_range(wide: tuple[Held, list[Found], Root]) -> None:
    held, found, root = wide
    assert root.level == 2
    reader = held.reader()
    assert list(reader.entries(root)) == found
    held.fetched.clear()
    parent, entry = found[50_000]
    assert reader.get(root, join(parent, entry.name)) == entry
    assert len(held.fetched) == 3
    assert list(reader.list_directory(root, parent)) == [one for one in found if one[0] == parent]
    with pytest.raises(NotFoundError):
        reader.get(root, b"dir-0000/absent")
    whole = reader.subtree(root, b"dir-1000")
    assert list(reader.read(*whole)) == [one for one in found if one[0] == b"dir-1000"]


@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 32))
def test_an_edit_rewrites_only_the_nodes_on_its_way_to_the_root(
    wide: tuple[Held, list[Found], Root], seed: int
) -> None:
    held, found, root = wide
    chance = random.Random(seed)
    edited = list(found)
    place = chance.randrange(len(found))
    parent, entry = found[place]
    action = chance.choice(["change", "remove", "add"])
    if action == "change":
        edited[place] = (parent, Entry(entry.name, entry.mode, entry.owner, chance.getrandbits(62)))
    elif action == "remove":
        del edited[place]
    else:
        edited.insert(place + 1, (parent, Entry(entry.name + b"+", 0o100644, OWNER, 1)))
    known = set(held.chunks)
    after = held.build(edited)
    # At most two nodes a level: a node that splits, or two that become one.
    assert len(held.chunks.keys() - known) <= 2 * (root.level + 1)
    held.fetched.clear()
    assert len(list(diff(held.reader(), root, after))) == 1
    assert len(held.fetched) <= 5 * (root.level + 1)


def test_a_million_extents_stay_out_of_the_leaf_and_come_back() -> None:
    from protocol.vault.chunk import Sealer
    from protocol.vault.content import ExtentWriter
    from tests.property.vault_trees import SECRET

    held = Held()
    writer = ExtentWriter(Sealer(SECRET), held.put)
    wanted = [Extent(reference(number), 0, 1 << 20) for number in range(50_000)]
    for extent in wanted:
        writer.add(extent)
    extents, depth = writer.finish()
    assert depth > 0
    assert len(extents) < 1024
    entry = Entry(b"disk", 0o100600, OWNER, 1, writer.size, extents, depth=depth)
    root = held.build([(b"", entry)])
    assert inspect(held.chunks[root.reference.id]).children == tuple(
        one.reference.id for one in extents if one.reference
    )
    reader = held.reader()
    back = reader.get(root, b"disk")
    assert list(reader.extents(back.extents, back.depth)) == wanted


@pytest.mark.parametrize(
    ("parent", "name"),
    [
        (b"", b".."),
        (b"", b"."),
        (b"", b"a/b"),
        (b"", b"a\0b"),
        (b"/etc", b"hosts"),
        (b"etc/", b"hosts"),
        (b"etc//x", b"hosts"),
        (b"a/../b", b"hosts"),
        (b"etc", b""),
        (b"etc", b"n" * 5000),
        (b"x/" * 40_000 + b"x", b"hosts"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(parent: bytes, name: bytes) -> None:
    with pytest.raises(InvalidError):
        Held().build([(parent, Entry(name, 0o100644, OWNER, 1))])


def test_entries_out_of_order_are_refused() -> None:
    found = in_key_order(many_files(3))
    for wrong in ([found[1], found[0]], [found[0], found[0]]):
        with pytest.raises(InvalidError):
            Held().build(wrong)


def test_leaves_that_are_taken_over_make_the_same_tree(
    wide: tuple[Held, list[Found], Root],
) -> None:
    held, found, root = wide
    leaves: list[FinishedLeaf] = []
    first = TreeBuilder(Sealer(SECRET), SECRET.boundary_key, held.put, leaves.append)
    for parent, entry in found:
        first.add(parent, entry)
    assert first.finish() == root
    assert sum(leaf.root.entries for leaf in leaves) == len(found)
    second = TreeBuilder(Sealer(SECRET), SECRET.boundary_key, held.put)
    start = 0
    for number, leaf in enumerate(leaves):
        end = start + leaf.root.entries
        # Every third is added entry by entry, and so is the last: it ended with the tree.
        if number % 3 and number < len(leaves) - 1:
            second.add_node(leaf.root, leaf.last_key)
        else:
            for parent, entry in found[start:end]:
                second.add(parent, entry)
        start = end
    assert second.finish() == root


def test_a_leaf_is_taken_over_only_where_one_begins() -> None:
    held = Held()
    root = held.build([(b"", ROOT)])
    builder = TreeBuilder(Sealer(SECRET), SECRET.boundary_key, held.put)
    builder.add(b"", ROOT)
    with pytest.raises(InvalidError, match="taken over"):
        builder.add_node(root, b"\0")


class Grown:
    """A tree with what is needed to take its nodes over into another."""

    def __init__(self, found: list[Found]) -> None:
        self.held = Held()
        self.levels: list[list[Taken]] = [[] for _ in range(16)]
        self._found = found
        self._start = 0
        self._ends_with_the_tree = False
        builder = TreeBuilder(
            Sealer(SECRET), SECRET.boundary_key, self.held.put, self._leaf, self._inner
        )
        for parent, entry in found:
            builder.add(parent, entry)
        self._ends_with_the_tree = True
        self.root = builder.finish()
        self.top = self.levels[self.root.level][-1]

    def _leaf(self, leaf: FinishedLeaf) -> None:
        end = self._start + leaf.root.entries
        found = self._found[self._start : end]
        closed = not self._ends_with_the_tree
        self.levels[0].append(Taken(leaf.root, leaf.last_key, closed, (), found))
        self._start = end

    def _inner(self, inner: FinishedInner) -> None:
        level = inner.root.level
        below, self.levels[level - 1] = tuple(self.levels[level - 1]), []
        found = [one for node in below for one in node.found]
        self.levels[level].append(Taken(inner.root, inner.last_key, inner.closed, below, found))


class Taken(NamedTuple):
    root: Root
    last_key: bytes
    closed: bool
    below: tuple[Any, ...]
    found: list[Found]


@pytest.fixture
def small_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of two to four entries, so that a small tree has many levels."""
    monkeypatch.setattr("protocol.vault.tree.LEAF_BITS", 1)
    monkeypatch.setattr("protocol.vault.tree._LEAF_MASK", 1)
    monkeypatch.setattr("protocol.vault.tree.INNER_BITS", 1)


@pytest.mark.usefixtures("small_nodes")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 120),
    edits=st.lists(st.tuples(st.integers(0, 130), st.sampled_from("rca")), max_size=6),
    heavy=st.booleans(),
)
def test_whole_nodes_that_are_taken_over_make_the_tree_of_all_entries(
    count: int, edits: list[tuple[int, str]], heavy: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if heavy:
            patch.setattr("protocol.vault.tree.MAX_LEAF_WEIGHT", 400)
            patch.setattr("protocol.vault.tree.MAX_INNER_WEIGHT", 500)
        _same_tree(count, edits)


def _same_tree(count: int, edits: list[tuple[int, str]]) -> None:
    found = many_files(count, per_directory=7)
    old = Grown(found)
    edited = {key_of(one): one for one in found}
    touched: set[bytes] = set()
    for place, action in edits:
        parent, entry = found[place % count] if count else (b"", Entry(b"n", 0o100644, OWNER, 1))
        key = key_of((parent, entry))
        touched.add(key)
        if action == "r":
            edited.pop(key, None)
        elif action == "c":
            edited[key] = (parent, Entry(entry.name, entry.mode, OWNER, place))
        else:
            new = (parent, Entry(entry.name + b"+%d" % place, 0o100644, OWNER, 1))
            edited[key_of(new)] = new
            touched.add(key_of(new))
    wanted = [edited[key] for key in sorted(edited)]
    held = Held()
    held.chunks.update(old.held.chunks)
    builder = TreeBuilder(Sealer(SECRET), SECRET.boundary_key, held.put)
    left = deque(wanted)

    def add_before(key: bytes) -> None:
        while left and key_of(left[0]) <= key:
            builder.add(*left.popleft())

    def take(node: Taken, before: bytes) -> None:
        changed = any(before < key <= node.last_key for key in touched)
        if not changed and node.closed and builder.at_start_of(node.root.level):
            builder.add_node(node.root, node.last_key)
            for _ in node.found:
                left.popleft()
        elif node.below:
            for below in node.below:
                take(below, before)
                before = below.last_key
        else:
            add_before(node.last_key)

    if found:
        take(old.top, b"")
    add_before(b"\xff" * 20)
    root = builder.finish()
    full = Held()
    assert full.build(wanted) == root
    assert list(held.reader().entries(root)) == wanted
    assert full.chunks.keys() <= held.chunks.keys()
