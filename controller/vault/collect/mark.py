"""Follow trees from what must stay to everything that they name.

Only the clear headers are read, so it takes no key. Every tree chunk is compared with
its id first: one flipped bit in a header would hide what the tree names, and a
collection that cannot see must stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from controller.store.store import ObjectStore
from controller.vault.collect.marks import Marks, Tree
from controller.vault.keys import pack_key
from protocol.errors import SteadError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, chunk_id, inspect

FOLLOWED_AT_ONCE = 256
_GAP_BYTES = 64 * 1024
_RANGE_BYTES = 4 * 1024 * 1024

Reached = Callable[[Sequence[ChunkId]], None]


class MarkingStoppedError(SteadError):
    """What restore points reach cannot be told, so nothing may be collected."""


def follow(
    marks: Marks,
    store: ObjectStore,
    tenant: str,
    packs: Mapping[int, str],
    reached: Reached = lambda _ids: None,
) -> Iterator[tuple[int, int]]:
    """Follow all waiting trees; yields how many were followed and the bytes read, each time.

    `packs` are names by number. `reached` hears of everything that is marked. Raises
    `MarkingStoppedError` at a tree that cannot be read.
    """
    while trees := marks.waiting(FOLLOWED_AT_ONCE):
        children: list[ChunkId] = []
        for number, group in groupby(trees, key=lambda tree: tree.pack):
            for stored, tree in _read(store, pack_key(tenant, packs[number]), list(group)):
                children += _children(stored, tree)
        marks.reach(children)
        reached(children)
        marks.followed(trees)
        yield len(trees), sum(tree.length for tree in trees)


def _read(store: ObjectStore, key: str, trees: Sequence[Tree]) -> Iterator[tuple[memoryview, Tree]]:
    """The stored bytes of trees of one pack, in its order; neighbours are read together."""
    start = 0
    while start < len(trees):
        end, stop = start, trees[start].offset
        while (
            end < len(trees)
            and trees[end].offset - stop <= _GAP_BYTES
            and trees[end].offset - trees[start].offset <= _RANGE_BYTES
        ):
            stop = trees[end].offset + trees[end].length
            end += 1
        first = trees[start].offset
        try:
            content = memoryview(store.get(key, first, stop - first))
        except SteadError as error:
            raise _stopped(trees[start].id, str(error), error) from error
        for tree in trees[start:end]:
            yield content[tree.offset - first : tree.offset - first + tree.length], tree
        start = end


def _children(stored: memoryview, tree: Tree) -> tuple[ChunkId, ...]:
    if chunk_id(stored) != tree.id:
        raise _stopped(tree.id, "it holds other bytes than its id says", None)
    try:
        return inspect(stored).children
    except ChunkDamagedError as damage:
        raise _stopped(tree.id, damage.reason, damage) from damage


def _stopped(tree: ChunkId, reason: str, cause: SteadError | None) -> MarkingStoppedError:
    code = ChunkDamagedError.code if cause is None else cause.code
    return MarkingStoppedError(
        f"nothing was collected: the tree chunk {tree.hex()} is needed and cannot be read "
        f"({reason}); run `stead vault scrub --now`",
        code=code,
    )
