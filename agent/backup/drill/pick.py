"""Choose the files that prove whether a restore point restores: newest, random, canaries.

A small tree is read whole, so each file is equally likely and the newest are the newest.
Of a large one some leaves are read, each by a random way from the root that is as likely
as it has entries: it costs the same however many files there are.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.errors import NotFoundError
from protocol.vault.entry import Entry, Kind
from protocol.vault.node import Root
from protocol.vault.path import join
from protocol.vault.reader import Found, Inner, TreeReader

WHOLE_ENTRIES = 200_000
WAYS = 64
_FILE = int(Kind.FILE)


class Picked(NamedTuple):
    """A file of a restore point."""

    parent: bytes
    entry: Entry

    @property
    def path(self) -> bytes:
        """Its path in the tree."""
        return join(self.parent, self.entry.name)


def size_of(entry: Entry) -> int:
    """The bytes of a file, its named streams among them."""
    return entry.size + sum(one.size for one in entry.streams) if entry.streams else entry.size


@dataclass(slots=True)
class Picks:
    """What was chosen. `absent` are canaries that the restore point has not got."""

    files: list[Picked] = field(default_factory=list)
    size: int = 0
    absent: list[bytes] = field(default_factory=list)


def pick(
    reader: TreeReader,
    root: Root,
    *,
    count: int,
    max_bytes: int,
    canaries: Sequence[bytes],
    seed: random.Random,
) -> Picks:
    """At most `count` files of at most `max_bytes` together; one at least where there is one.

    A third are the newest, the others random; `canaries` (paths of the tree) come first.
    """
    if root.entries <= WHOLE_ENTRIES:
        found: Iterable[Found] = reader.entries(root)
    else:
        found = some_entries(reader, root, WAYS, seed)
    newest, others, smallest = _sift(found, max(1, count // 3), count, max_bytes, seed)
    picks = Picks()
    wanted: list[Picked] = []
    for path in canaries:
        try:
            wanted.append(Picked(path.rpartition(b"/")[0], reader.get(root, path)))
        except NotFoundError:
            picks.absent.append(path)
    _take(picks, [*wanted, *newest, *others], count, max_bytes)
    if not picks.files and smallest is not None:
        _take(picks, [smallest], 1, size_of(smallest.entry))
    return picks


def some_entries(reader: TreeReader, root: Root, ways: int, seed: random.Random) -> Iterator[Found]:
    """The entries of some leaves, each reached by a random way; level by level, at once."""
    at: list[Root] = [root] * ways
    while at:
        distinct = {node.reference.id: node for node in at}
        below: list[Root] = []
        for node, opened in reader.nodes(list(distinct.values())):
            if not isinstance(opened, Inner):
                yield from opened.entries
                continue
            assert isinstance(node, Root)
            times = sum(one.reference.id == node.reference.id for one in at)
            children = [item.node for item in opened.items]
            weights = [child.entries for child in children]
            below += seed.choices(children, weights, k=times)
        at = below


def _sift(
    found: Iterable[Found], newest: int, others: int, max_bytes: int, seed: random.Random
) -> tuple[list[Picked], list[Picked], Picked | None]:
    """The newest files, some random ones, and the smallest, in one pass and bounded memory."""
    heap: list[tuple[int, int, Picked]] = []
    kept: list[Picked] = []
    smallest: Picked | None = None
    seen = 0
    for number, (parent, entry) in enumerate(found):
        if entry.mode >> 12 != _FILE or entry.changed_while_read:
            continue
        one = Picked(parent, entry)
        size = size_of(entry)
        if smallest is None or size < size_of(smallest.entry):
            smallest = one
        if size > max_bytes:
            continue
        seen += 1
        if len(heap) < newest:
            heapq.heappush(heap, (entry.mtime_ns, number, one))
        else:
            heapq.heappushpop(heap, (entry.mtime_ns, number, one))
        place = len(kept) if len(kept) < others else seed.randrange(seen)
        if place < others:
            kept[place : place + 1] = [one]
    seed.shuffle(kept)
    return [one for _, _, one in sorted(heap, reverse=True)], kept, smallest


def _take(picks: Picks, wanted: Iterable[Picked], count: int, max_bytes: int) -> None:
    known = {one.path for one in picks.files}
    for one in wanted:
        if len(picks.files) >= count:
            return
        size = size_of(one.entry)
        if one.path in known or one.entry.mode >> 12 != _FILE or picks.size + size > max_bytes:
            continue
        known.add(one.path)
        picks.files.append(one)
        picks.size += size
