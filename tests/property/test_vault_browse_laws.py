"""Laws of looking into trees: sums, comparing parts of them, reading through a cache."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.vault.cached import CachedReader
from protocol.vault.chunk import Opener
from protocol.vault.diff import diff
from protocol.vault.entry import Entry, Kind, Owner
from protocol.vault.node import Root
from protocol.vault.path import below_range, join, tree_key
from protocol.vault.reader import Span
from protocol.vault.totals import Sum, sum_below
from tests.property.vault_trees import SECRET, Found, Held, key_of, many_files, trees

# The first draw makes tables of Unicode, which takes seconds on a busy machine.
PATIENT = settings(max_examples=50)


def folders(found: list[Found]) -> list[bytes]:
    above = {parent for parent, _ in found}
    for parent in list(above):
        names = parent.split(b"/")
        above |= {b"/".join(names[:end]) for end in range(len(names))}
    return sorted(above)


@PATIENT
@given(trees())
def test_the_sum_below_a_directory_is_that_of_its_entries(found: list[Found]) -> None:
    held = Held()
    root = held.build(found)
    for path in folders(found):
        prefix = path + b"/" if path else b""
        below = [
            entry
            for parent, entry in found
            if entry.name and join(parent, entry.name).startswith(prefix)
        ]
        files = [entry.size for entry in below if entry.kind is Kind.FILE]
        assert sum_below(held.reader(), root, path) == Sum(len(below), len(files), sum(files))


def test_a_sum_opens_the_edges_of_a_directory_alone() -> None:
    held = Held()
    found = many_files(40_000, per_directory=20_000)
    root = held.build(found)
    held.fetched.clear()
    assert sum_below(held.reader(), root, b"dir-0001") == Sum(20_000, 20_000, 2_000_000)
    assert len(held.fetched) <= 2 * (root.level + 1)


@PATIENT
@given(trees(), trees(), st.data())
def test_a_diff_of_a_part_is_that_part_of_the_diff(
    old: list[Found], new: list[Found], data: st.DataObject
) -> None:
    held = Held()
    before, after = held.build(old), held.build(new)
    path = data.draw(st.sampled_from(folders(old + new) or [b""]))
    low, high = below_range(path)
    whole = list(diff(held.reader(), before, after))
    inside = [
        change
        for change in whole
        for entry in (change.old or change.new,)
        if entry is not None
        and low <= (key := key_of((change.parent, entry)))
        and (high is None or key < high)
    ]
    assert list(diff(held.reader(), before, after, keys=(low, high))) == inside


def test_a_diff_passes_by_nodes_that_are_of_no_interest() -> None:
    held = Held()
    old = many_files(30_000)
    large = Entry(b"large", 0o100644, Owner(0, 0), 1, 200, inline=bytes(200))
    new = sorted([*old, (b"dir-0300", large)], key=key_of)
    before, after = held.build([]), held.build(new)

    def wanted(node: Root) -> bool:
        return node.bytes > 100 * node.files

    changes = list(diff(held.reader(), before, after, wanted=wanted))
    assert large in [change.new for change in changes]
    assert len(changes) < 5_000


@PATIENT
@given(trees())
def test_a_cache_changes_nothing_of_what_is_read(found: list[Found]) -> None:
    held = Held()
    root = held.build(found)
    cached = CachedReader(Opener(SECRET), held.fetch)
    assert list(cached.entries(root)) == list(cached.entries(root)) == found
    for parent, entry in found:
        assert cached.get(root, join(parent, entry.name)) == entry


def test_a_cache_fetches_a_node_once_and_keeps_so_many() -> None:
    held = Held()
    root = held.build(many_files(20_000))
    cached = CachedReader(Opener(SECRET), held.fetch, kept=20)
    held.fetched.clear()
    for _ in range(3):
        cached.get(root, b"dir-0007/file-000300")
    assert len(held.fetched) == len(set(held.fetched)) == root.level + 1
    assert sum(1 for _ in cached.entries(root)) == 20_000
    assert len(cached._kept) <= 20


def test_reading_passes_by_nodes_that_are_refused() -> None:
    held = Held()
    root = held.build(many_files(20_000))
    held.fetched.clear()
    span = Span((root,), tree_key(b"dir-0001"), None)
    assert list(held.reader().read(span, wanted=lambda _: False)) == []
    assert len(held.fetched) == 1
