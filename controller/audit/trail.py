"""Walk through a log beside what was signed about it: the check that trusts nobody.

Pure. Entries and checkpoints come in; the walk recomputes the chain and the Merkle tree,
in memory that does not grow with the log, and says where they part.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from controller.audit.chain import EMPTY, Broken, Entry, Head, verify
from protocol.checkpoint import Checkpoint
from protocol.merkle import Frontier

State = tuple[bytes, bytes]
"""What a log is at some number of entries: the root over them, and the hash of the last."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A checkpoint that the log must go through, and whose word it is."""

    checkpoint: Checkpoint
    of: str


@dataclass(frozen=True, slots=True)
class Walked:
    """The log holds up to `head`; checkpoints cover the first `covered` entries of it.

    `states` says what it was at the sizes that were asked for, as far as it has so many.
    """

    head: Head
    covered: int
    checkpoints: int
    states: Mapping[int, State] = field(default_factory=dict)


def walk(
    steps: Iterable[Entry | Mark],
    log: str,
    *,
    expected: Collection[Head] = (),
    sizes: Collection[int] = (),
) -> Walked | Broken:
    """Check a whole log from its first entry on.

    Entries come in order; a mark comes at the latest right after the last entry that it
    covers. `expected` are heads that were seen: the chain must go through them. `Broken` names
    the entry at which something does not fit.
    """
    tree, head = Frontier(), EMPTY
    waiting: list[tuple[int, int, Mark]] = []
    covered = count = number = 0
    seen = {one for one in expected if one != EMPTY}
    awaited = {one.seq for one in seen}
    states: dict[int, State] = {}
    for step in steps:
        if isinstance(step, Mark):
            number += 1
            heapq.heappush(waiting, (step.checkpoint.size, number, step))
        else:
            found = verify((step,), log, after=head)
            if isinstance(found, Broken):
                return found
            head = found.head
            tree.add(head.hash)
            if head.seq in awaited and {one for one in seen if one.seq == head.seq} != {head}:
                return Broken(head.seq, "the entry is not the one that was seen before")
            if head.seq in sizes:
                states[head.seq] = (tree.root(), head.hash)
        while waiting and waiting[0][0] <= tree.size:
            mark = heapq.heappop(waiting)[2]
            fault = _fault(mark, log, tree, head)
            if fault:
                return Broken(tree.size, fault)
            covered, count = tree.size, count + 1
    last = max(awaited, default=0)
    if last > head.seq:
        return Broken(head.seq + 1, f"the log ends before entry {last}, seen before")
    if waiting:
        size, _, mark = waiting[0]
        return Broken(
            head.seq + 1, f"the log ends before this one, and {mark.of} has {size} entries"
        )
    return Walked(head, covered, count, states)


def _fault(mark: Mark, log: str, tree: Frontier, head: Head) -> str:
    said = mark.checkpoint
    if said.log != log:
        return f"{mark.of} is of another log"
    if said.size < tree.size:
        return f"{mark.of} of {said.size} entries stands after later ones"
    if (said.root, said.head) != (tree.root(), head.hash):
        return f"an entry up to this one is not what {mark.of} of {said.at:%Y-%m-%d %H:%M:%S}Z says"
    return ""
