"""Walk through a log beside what was signed about it: the check that trusts nobody.

Pure. Entries and checkpoints come in; the walk recomputes the chain and the Merkle tree,
in memory that does not grow with the log, and says where they part.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from controller.audit.chain import EMPTY, Broken, Entry, Head, verify
from protocol.checkpoint import Checkpoint
from protocol.merkle import Frontier


@dataclass(frozen=True, slots=True)
class Mark:
    """A checkpoint that the log must go through, and whose word it is."""

    checkpoint: Checkpoint
    of: str


@dataclass(frozen=True, slots=True)
class Walked:
    """The log holds up to `head`; checkpoints cover the first `covered` entries of it."""

    head: Head
    covered: int
    checkpoints: int


def walk(
    steps: Iterable[Entry | Mark], log: str, *, expected: Head | None = None
) -> Walked | Broken:
    """Check a whole log from its first entry on.

    Entries come in order; a mark comes at the latest right after the last entry that it
    covers. `expected` is a head that was seen: the chain must go through it. `Broken` names
    the entry at which something does not fit.
    """
    tree, head = Frontier(), EMPTY
    waiting: list[tuple[int, int, Mark]] = []
    covered = count = number = 0
    met = expected is None or expected == EMPTY
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
            if expected is not None and head.seq == expected.seq:
                if head != expected:
                    return Broken(head.seq, "the entry is not the one that was seen before")
                met = True
        while waiting and waiting[0][0] <= tree.size:
            mark = heapq.heappop(waiting)[2]
            fault = _fault(mark, log, tree, head)
            if fault:
                return Broken(tree.size, fault)
            covered, count = tree.size, count + 1
    if not met and expected is not None:
        return Broken(head.seq + 1, f"the log ends before entry {expected.seq}, seen before")
    if waiting:
        size, _, mark = waiting[0]
        return Broken(
            head.seq + 1, f"the log ends before this one, and {mark.of} has {size} entries"
        )
    return Walked(head, covered, count)


def _fault(mark: Mark, log: str, tree: Frontier, head: Head) -> str:
    said = mark.checkpoint
    if said.log != log:
        return f"{mark.of} is of another log"
    if said.size < tree.size:
        return f"{mark.of} of {said.size} entries stands after later ones"
    if (said.root, said.head) != (tree.root(), head.hash):
        return f"an entry up to this one is not what {mark.of} of {said.at:%Y-%m-%d %H:%M:%S}Z says"
    return ""
