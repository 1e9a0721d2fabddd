"""The Merkle tree over a log: its root, and proofs that it holds an entry or an older log.

Pure. The shape is that of RFC 6962, section 2.1, with BLAKE3 as the hash: a leaf is
BLAKE3(0x00 ‖ the entry's hash), a node BLAKE3(0x01 ‖ left ‖ right), so that no leaf can be
taken for a node. The root of no entries is BLAKE3 of nothing. All hashes have 32 bytes.

Whoever makes a proof gives a function `node(level, number)`: the hash of the full subtree
of 2**level leaves that begins at leaf number * 2**level. Leaves count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blake3 import blake3

HASH_BYTES = 32
EMPTY_ROOT = blake3(b"").digest()
LONGEST_PROOF = 128
"""More hashes than any proof has: a log has fewer than 2**63 entries."""

Node = Callable[[int, int], bytes]


def leaf_hash(entry_hash: bytes) -> bytes:
    """The leaf of an entry."""
    return blake3(b"\0" + entry_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The node above two others."""
    return blake3(b"\1" + left + right).digest()


class Frontier:
    """The root of a log that grows, in memory that does not.

    >>> tree = Frontier()
    >>> tree.root() == EMPTY_ROOT
    True
    """

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, entry_hash: bytes) -> None:
        """Take the next entry's hash."""
        made = leaf_hash(entry_hash)
        size = self.size
        while size & 1:
            made = node_hash(self._peaks.pop(), made)
            size >>= 1
        self._peaks.append(made)
        self.size += 1

    def root(self) -> bytes:
        """The root over all entries that were taken."""
        return _fold(self._peaks)


def root_of(size: int, node: Node) -> bytes:
    """The root of the first `size` entries."""
    return EMPTY_ROOT if size == 0 else _span(0, size, node)


def prove_inclusion(leaf: int, size: int, node: Node) -> tuple[bytes, ...]:
    """That leaf number `leaf` is in the tree of `size` entries (RFC 6962, 2.1.1)."""
    if not 0 <= leaf < size:
        raise ValueError(f"a tree of {size} entries has no leaf {leaf}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if leaf < middle:
            path.append(_span(middle, end, node))
            end = middle
        else:
            path.append(_span(begin, middle, node))
            begin = middle
    return tuple(reversed(path))


def prove_consistency(first: int, size: int, node: Node) -> tuple[bytes, ...]:
    """That the tree of `first` entries is how the tree of `size` began (RFC 6962, 2.1.2)."""
    if not 0 <= first <= size:
        raise ValueError(f"a tree of {size} entries did not begin with {first}")
    if first in {0, size}:
        return ()
    path: list[bytes] = []
    begin, end, whole = 0, size, True
    while first != end:
        middle = begin + _split(end - begin)
        if first <= middle:
            path.append(_span(middle, end, node))
            end = middle
        else:
            path.append(_span(begin, middle, node))
            begin, whole = middle, False
    if not whole:
        path.append(_span(begin, end, node))
    return tuple(reversed(path))


def is_included(
    entry_hash: bytes, leaf: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows that the entry is leaf number `leaf` of the tree with this root."""
    if not 0 <= leaf < size or not _sound(proof):
        return False
    made, place, last = leaf_hash(entry_hash), leaf, size - 1
    for step in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            made = node_hash(step, made)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            made = node_hash(made, step)
        place, last = place >> 1, last >> 1
    return last == 0 and made == root


def is_consistent(
    first: int, first_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the log of `first` entries was only added to."""
    if not 0 <= first <= size or not _sound(proof):
        return False
    if first == size:
        return not proof and first_root == root
    if first == 0:
        return not proof and first_root == EMPTY_ROOT
    steps = list(proof)
    place, last = first - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if place:
        if not steps:
            return False
        old = new = steps.pop(0)
    else:
        # The older tree is one full subtree: its root is where the newer one's way begins.
        old = new = first_root
    for step in steps:
        if last == 0:
            return False
        if place & 1 or place == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, step)
        place, last = place >> 1, last >> 1
    return last == 0 and old == first_root and new == root


def _sound(proof: Sequence[bytes]) -> bool:
    return len(proof) <= LONGEST_PROOF and all(len(step) == HASH_BYTES for step in proof)


def _split(count: int) -> int:
    """The largest power of two below `count`, which is 2 at least."""
    return 1 << ((count - 1).bit_length() - 1)


def _span(begin: int, end: int, node: Node) -> bytes:
    """The root over leaves `begin` to `end`; `begin` is where RFC 6962 splits a tree."""
    peaks: list[bytes] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        peaks.append(node(level, begin >> level))
        begin += 1 << level
    return _fold(peaks)


def _fold(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    made = peaks[-1]
    for peak in reversed(peaks[:-1]):
        made = node_hash(peak, made)
    return made
