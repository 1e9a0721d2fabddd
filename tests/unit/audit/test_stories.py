"""Whether what several say about one log can all be true."""

from __future__ import annotations

from datetime import timedelta

from controller.audit.stories import Relation, Whole, compare, relate
from controller.audit.trail import Mark
from protocol.merkle import Frontier
from tests.unit.audit.signing import AT, checkpoint, entry

LOG = [entry(number) for number in range(12)]
FORK = [*LOG[:4], *(entry(number, "b") for number in range(4, 12))]
LATER = AT + timedelta(hours=2)


def whole(entries: list[bytes]) -> Whole:
    tree, states = Frontier(), {}
    for one in entries:
        tree.add(one)
        states[tree.size] = (tree.root(), one)
    return Whole(states)


def test_two_checkpoints_of_one_size_decide_alone() -> None:
    five = checkpoint(LOG[:5])
    assert relate(five, checkpoint(LOG[:5], at=LATER), []) is Relation.AGREES
    assert relate(five, checkpoint(FORK[:5]), []) is Relation.FORKED


def test_of_two_sizes_only_a_whole_log_decides() -> None:
    four, five, nine = checkpoint(LOG[:4]), checkpoint(LOG[:5]), checkpoint(LOG[:9], at=LATER)
    assert relate(five, nine, []) is Relation.UNKNOWN
    assert relate(five, nine, [whole(LOG[:8])]) is Relation.UNKNOWN
    assert relate(nine, five, [whole(LOG[:9])]) is Relation.AGREES
    forked = checkpoint(FORK[:9], at=LATER)
    assert relate(five, forked, [whole(LOG)]) is Relation.UNKNOWN
    assert relate(five, forked, [whole(FORK)]) is Relation.FORKED
    assert relate(four, forked, [whole(FORK)]) is Relation.AGREES


def test_fewer_entries_at_a_later_time_are_named_and_no_proof() -> None:
    five, nine = checkpoint(LOG[:5], at=LATER), checkpoint(LOG[:9])
    assert relate(five, nine, []) is Relation.SHRUNK
    assert relate(five, nine, [whole(LOG)]) is Relation.SHRUNK
    forked = checkpoint(FORK[:5], at=LATER)
    assert relate(forked, nine, [whole(LOG)]) is Relation.FORKED


def test_each_gets_the_worst_that_it_is_to_any_other() -> None:
    said = {
        "a": checkpoint(LOG[:9], at=LATER),
        "b": checkpoint(LOG[:4]),
        "c": checkpoint(LOG[:9], at=LATER),
        "d": checkpoint(FORK[:9], at=LATER),
    }
    marks = [Mark(one, of) for of, one in said.items()]
    found = compare(marks[:3], [whole(LOG[:9])])
    assert {one.mark.of: one.relation for one in found} == dict.fromkeys("abc", Relation.AGREES)
    found = compare(marks, [whole(LOG[:9])])
    assert [(one.relation, one.other and one.other.of) for one in found] == [
        (Relation.FORKED, "d"),
        (Relation.UNKNOWN, "d"),
        (Relation.FORKED, "d"),
        (Relation.FORKED, "a"),
    ]
    assert compare(marks[:1], [])[0].relation is None
    assert [one.relation for one in compare([marks[0], marks[2]], [])] == [Relation.AGREES] * 2
