"""Laws of the Merkle tree, held against one that was written as RFC 6962 says it."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from protocol.merkle import (
    EMPTY_ROOT,
    Frontier,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
    prove_consistency,
    prove_inclusion,
    root_of,
)

SIZES = st.integers(1, 70)


def entry(number: int) -> bytes:
    return blake3(b"entry %d" % number).digest()


def plain_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1."""
    if not leaves:
        return blake3(b"").digest()
    if len(leaves) == 1:
        return blake3(b"\x00" + leaves[0]).digest()
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    return blake3(b"\x01" + plain_root(leaves[:cut]) + plain_root(leaves[cut:])).digest()


def plain_path(leaf: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    if leaf < cut:
        return [*plain_path(leaf, leaves[:cut]), plain_root(leaves[cut:])]
    return [*plain_path(leaf - cut, leaves[cut:]), plain_root(leaves[:cut])]


def plain_proof(first: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2."""
    if first == len(leaves):
        return [] if whole else [plain_root(leaves)]
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    if first <= cut:
        return [*plain_proof(first, leaves[:cut], whole), plain_root(leaves[cut:])]
    return [*plain_proof(first - cut, leaves[cut:], False), plain_root(leaves[:cut])]


def node_of(leaves: list[bytes]):  # type: ignore[no-untyped-def]
    def node(level: int, number: int) -> bytes:
        part = leaves[number << level : (number + 1) << level]
        assert len(part) == 1 << level
        return plain_root(part)

    return node


def log(size: int) -> list[bytes]:
    return [entry(number) for number in range(size)]


def test_every_small_tree_is_that_of_the_standard() -> None:
    for size in range(1, 40):
        leaves = log(size)
        node, root = node_of(leaves), plain_root(leaves)
        assert root_of(size, node) == root
        for leaf in range(size):
            proof = prove_inclusion(leaf, size, node)
            assert list(proof) == plain_path(leaf, leaves)
            assert is_included(leaves[leaf], leaf, size, proof, root)
        for first in range(1, size + 1):
            steps = prove_consistency(first, size, node)
            assert list(steps) == plain_proof(first, leaves)
            assert is_consistent(first, plain_root(leaves[:first]), size, root, steps)
        assert is_consistent(0, EMPTY_ROOT, size, root, ())


@given(st.integers(0, 600))
def test_a_frontier_has_the_root_of_the_tree(size: int) -> None:
    tree = Frontier()
    for one in log(size):
        tree.add(one)
    assert (tree.size, tree.root()) == (size, plain_root(log(size)))


@given(SIZES, st.data())
def test_an_altered_inclusion_proves_nothing(size: int, data: st.DataObject) -> None:
    leaves = log(size)
    leaf = data.draw(st.integers(0, size - 1))
    root, proof = plain_root(leaves), plain_path(leaf, leaves)
    bad = data.draw(st.sampled_from(["entry", "leaf", "root", "step", "more", "less", "short"]))
    if bad == "entry":
        assert not is_included(entry(size), leaf, size, proof, root)
    elif bad == "leaf":
        other = data.draw(st.integers(-1, size).filter(lambda one: one != leaf))
        assert not is_included(leaves[leaf], other, size, proof, root)
    elif bad == "root":
        assert not is_included(leaves[leaf], leaf, size, proof, entry(0))
    elif bad == "more":
        assert not is_included(leaves[leaf], leaf, size, [*proof, entry(1)], root)
    elif proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        changed = {"step": [entry(-1)], "less": [], "short": [proof[at][:31]]}[bad]
        mended = [*proof[:at], *changed, *proof[at + 1 :]]
        assert not is_included(leaves[leaf], leaf, size, mended, root)


@given(SIZES, st.data())
def test_a_log_that_was_changed_is_not_proven_to_be_the_older_one(
    size: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, size))
    old = log(first)
    new = log(size)
    place = data.draw(st.integers(0, first - 1))
    how = data.draw(st.sampled_from(["edited", "cut", "inserted", "swapped"]))
    if how == "edited":
        new[place] = entry(-5)
    elif how == "cut":
        new = [*new[:place], *new[place + 1 :], entry(-6)]
    elif how == "inserted":
        new = [*new[:place], entry(-7), *new[place:]]
    elif first > 1:
        other = (place + 1) % first
        new[place], new[other] = new[other], new[place]
    else:
        new[0] = entry(-8)
    node = node_of(new)
    proof = prove_consistency(first, len(new), node)
    assert not is_consistent(first, plain_root(old), len(new), plain_root(new), proof)


@given(SIZES, st.data())
def test_an_altered_consistency_proof_proves_nothing(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, size))
    leaves = log(size)
    root, before = plain_root(leaves), plain_root(leaves[:first])
    proof = list(prove_consistency(first, size, node_of(leaves)))
    assert not is_consistent(first, before, size, root, [*proof, entry(3)])
    assert not is_consistent(first, entry(4), size, root, proof)
    assert not is_consistent(first, before, size, entry(4), proof)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        assert not is_consistent(first, before, size, root, [*proof[:at], *proof[at + 1 :]])
        changed = [*proof[:at], entry(-1), *proof[at + 1 :]]
        assert not is_consistent(first, before, size, root, changed)
    assert not is_consistent(size + 1, root, size, root, ())
    assert not is_consistent(first, before, size, root, [b""])


def test_no_proof_is_made_of_what_is_not_there() -> None:
    node = node_of(log(3))
    with pytest.raises(ValueError, match="no leaf 3"):
        prove_inclusion(3, 3, node)
    with pytest.raises(ValueError, match="did not begin"):
        prove_consistency(4, 3, node)


def test_a_proof_is_as_long_as_the_tree_is_high() -> None:
    """Else who made the root could show anything to be in a tree of another size."""
    entry, step = bytes(32), bytes([1]) * 32
    assert is_included(entry, 0, 1, (), leaf_hash(entry))
    assert not is_included(entry, 0, 5, (), leaf_hash(entry))
    longer = node_hash(step, leaf_hash(entry))
    assert is_included(entry, 1, 2, (step,), longer)
    assert not is_included(entry, 0, 1, (step,), longer)
