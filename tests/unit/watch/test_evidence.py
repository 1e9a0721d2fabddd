"""When a run may go by what was watched, and why not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.watch.evidence import (
    SENTENCES,
    WALK_EVERY_NS,
    Clocks,
    Evidence,
    Handover,
    Now,
    Why,
    decode_drained,
    decode_handover,
    doubt,
    encode_handover,
    was_set_back,
    why_of,
)

SECOND = 1_000_000_000
BEFORE = Clocks(10**18, 10**12)
EVIDENCE = Evidence("boot", "generation", 3, b"mounts", BEFORE, 10**18)
HANDED = Handover("ts_1", "boot", "generation", 3, 4, b"mounts", (), (), ())
NOW = Now("boot", b"mounts", Clocks(10**18 + 60 * SECOND, 10**12 + 60 * SECOND))


def test_an_unbroken_chain_of_evidence_is_believed() -> None:
    assert doubt(EVIDENCE, HANDED, NOW) is None
    assert doubt(EVIDENCE, replace(HANDED, since=0), NOW) is None


@pytest.mark.parametrize(
    ("evidence", "handed", "now", "why"),
    [
        ({}, None, {}, Why.UNWATCHED),
        (None, {}, {}, Why.GAP),
        ({}, {"problem": "limit"}, {}, Why.LIMIT),
        ({}, {"problem": "off"}, {}, Why.OFF),
        ({}, {}, {"boot": "another"}, Why.REBOOT),
        ({"boot": "another"}, {}, {}, Why.REBOOT),
        ({}, {"boot": "another"}, {}, Why.REBOOT),
        ({}, {"generation": "another"}, {}, Why.GAP),
        (
            {},
            {"generation": "new", "ended": (("generation", "overflow"),)},
            {},
            Why.OVERFLOW,
        ),
        ({}, {"generation": "new", "ended": (("older", "overflow"),)}, {}, Why.GAP),
        ({"number": 2}, {}, {}, Why.GAP),
        ({"number": 4}, {}, {}, Why.GAP),
        ({"mounts": b"others"}, {}, {}, Why.REMOUNT),
        ({}, {"mounts": b"others"}, {}, Why.REMOUNT),
        ({}, {}, {"mounts": b"others"}, Why.REMOUNT),
        ({}, {}, {"clocks": Clocks(10**18 - SECOND, 10**12 + SECOND)}, Why.CLOCK),
        ({}, {}, {"clocks": Clocks(10**18 + SECOND, 10**12 + 60 * SECOND)}, Why.CLOCK),
        ({"walked_ns": 10**18 - WALK_EVERY_NS}, {}, {}, Why.SCHEDULED),
    ],
)
def test_a_broken_chain_of_evidence_walks_and_says_why(
    evidence: dict[str, Any] | None, handed: dict[str, Any] | None, now: dict[str, Any], why: Why
) -> None:
    found = doubt(
        None if evidence is None else replace(EVIDENCE, **evidence),
        None if handed is None else replace(HANDED, **handed),
        NOW._replace(**now),
    )
    assert found is why


@given(
    since=st.integers(0, 20),
    length=st.integers(1, 20),
    number=st.integers(0, 60),
    generation=st.sampled_from(["generation", "other"]),
)
def test_only_a_handover_that_covers_all_since_the_last_run_is_believed(
    since: int, length: int, number: int, generation: str
) -> None:
    handed = replace(HANDED, since=since, number=since + length, generation=generation)
    believed = doubt(replace(EVIDENCE, number=number), handed, NOW) is None
    told = set(range(since + 1, since + length + 1)) if generation == "generation" else set()
    needed = set(range(number + 1, since + length + 1))
    assert not believed or (needed and needed <= told)


@given(wall=st.integers(-(10**10), 10**13), boot=st.integers(0, 10**13))
def test_a_clock_that_lost_more_than_a_second_was_set_back(wall: int, boot: int) -> None:
    after = Clocks(BEFORE.wall_ns + wall, BEFORE.boot_ns + boot)
    assert was_set_back(BEFORE, after) == (wall < 0 or boot - wall > SECOND)


def test_every_reason_has_words_and_comes_back_from_the_detector() -> None:
    assert set(SENTENCES) == set(Why)
    assert all(why_of(f"walk: {why}") == SENTENCES[why] for why in Why)


def test_a_handover_for_another_task_or_damaged_is_none() -> None:
    data = encode_handover(HANDED)
    assert decode_handover(data, "ts_1") == HANDED
    assert decode_handover(data, "ts_2") is None
    assert decode_handover(data[:-1], "ts_1") is None
    assert decode_drained(b"\xc1") is None
