"""Decide whether what several say about one log can all be true.

Pure. Each checkpoint is somebody's word: how many entries there were, with which root and
which last hash. Whoever has a whole log can say what it was at any number of entries, so a
whole log decides about all checkpoints that are not larger. Two checkpoints alone decide only
when they are of the same number of entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from controller.audit.trail import Mark, State
from protocol.checkpoint import Checkpoint


class Relation(StrEnum):
    """What two checkpoints of one log are to each other; the worst last."""

    AGREES = "agrees"
    """One log can have both."""
    UNKNOWN = "unknown"
    """Nobody here has the entries that would show it."""
    SHRUNK = "shrunk"
    """The one with fewer entries was signed later: the log was cut in between, or the
    controller's clock was set back."""
    FORKED = "forked"
    """No log can have both. Both are signed, so nobody can deny it."""


_ORDER = tuple(Relation)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole log that was walked: what it was at some sizes."""

    states: Mapping[int, State]

    def has(self, said: Checkpoint) -> bool:
        """Whether a checkpoint is of this log."""
        return self.states.get(said.size) == (said.root, said.head)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst that a checkpoint is to any other one; None where there is no other."""

    mark: Mark
    relation: Relation | None
    other: Mark | None


def relate(one: Checkpoint, other: Checkpoint, wholes: Sequence[Whole]) -> Relation:
    """What two checkpoints of one log are to each other, as far as whole logs show it."""
    smaller, larger = sorted((one, other), key=lambda each: each.size)
    if smaller.size == larger.size:
        same = (smaller.root, smaller.head) == (larger.root, larger.head)
        return Relation.AGREES if same else Relation.FORKED
    having = [whole for whole in wholes if whole.has(larger)]
    if any(not whole.has(smaller) for whole in having):
        return Relation.FORKED
    if smaller.at > larger.at:
        return Relation.SHRUNK
    return Relation.AGREES if having else Relation.UNKNOWN


def compare(marks: Sequence[Mark], wholes: Sequence[Whole]) -> list[Verdict]:
    """A verdict on each of the checkpoints of one log, in the order of `marks`."""
    several = Counter(mark.checkpoint for mark in marks)
    first = {mark.checkpoint: mark for mark in reversed(marks)}
    worst = {one: _worst(one, first, wholes) for one in first}
    found = []
    for mark in marks:
        relation, other = worst[mark.checkpoint]
        if relation is None and several[mark.checkpoint] > 1:
            relation = Relation.AGREES
        found.append(Verdict(mark, relation, other))
    return found


def _worst(
    one: Checkpoint, first: Mapping[Checkpoint, Mark], wholes: Sequence[Whole]
) -> tuple[Relation | None, Mark | None]:
    relation: Relation | None = None
    other: Mark | None = None
    for each, mark in first.items():
        if each == one:
            continue
        new = relate(one, each, wholes)
        if relation is None or _ORDER.index(new) > _ORDER.index(relation):
            relation, other = new, mark
    return relation, other
