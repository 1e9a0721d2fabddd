"""Plans: their digest, their differences, their words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.patching.plan import (
    Change,
    PatchPlan,
    Step,
    decode_plan,
    encode_plan,
    find_differences,
    render_plan,
)
from protocol.errors import InvalidError

STEP = Step(
    change=Change.UPGRADE,
    name="alpha",
    arch="all",
    old="1",
    new="2",
    origin="Test:stable",
    reason="on offer",
    download_bytes=10,
    sha256="ab" * 32,
)
PLAN = PatchPlan(
    manager="apt",
    requested=None,
    removals=False,
    steps=(STEP,),
    download_bytes=10,
    disk_change_bytes=-4096,
)

steps = st.builds(
    Step,
    change=st.sampled_from(Change),
    name=st.sampled_from(["alpha", "beta", "gamma"]),
    arch=st.sampled_from(["all", "amd64"]),
    old=st.sampled_from(["", "1", "2"]),
    new=st.sampled_from(["", "2", "3"]),
    origin=st.text(max_size=5),
    reason=st.text(max_size=5),
    download_bytes=st.integers(0, 9),
    sha256=st.sampled_from(["", "ab"]),
)
plans = st.builds(
    PatchPlan,
    manager=st.just("apt"),
    requested=st.none() | st.lists(st.sampled_from(["alpha", "beta"])).map(tuple),
    removals=st.booleans(),
    steps=st.lists(steps, max_size=4, unique_by=lambda s: (s.name, s.arch)).map(tuple),
    download_bytes=st.integers(0, 9),
    disk_change_bytes=st.integers(-9, 9),
)


@given(plan=plans)
def test_a_plan_survives_encoding_with_its_digest(plan: PatchPlan) -> None:
    decoded = decode_plan(encode_plan(plan))
    assert decoded == plan
    assert decoded.digest() == plan.digest()


@given(one=plans, other=plans)
def test_plans_differ_exactly_when_digests_do_and_then_a_difference_is_named(
    one: PatchPlan, other: PatchPlan
) -> None:
    assert (one.digest() == other.digest()) is (one == other)
    if set(one.steps) == set(other.steps) and one.steps != other.steps:
        return  # only the order of steps, which a manager always makes the same
    assert bool(find_differences(one, other)) is (one != other)


def test_the_canonical_form_does_not_change_between_releases() -> None:
    assert encode_plan(PLAN).startswith(b'{"disk_change_bytes":-4096,"download_bytes":10,')
    digest = "c909887ef2250afecf9a2c5af97fb58fc6518b535bd6035987d9e851d3921efd"
    assert PLAN.digest() == digest


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", encode_plan(PLAN)[:-1]])
def test_what_is_not_a_plan_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError, match="not a patch plan"):
        decode_plan(data)


def change_step(**fields: str | int) -> PatchPlan:
    return msgspec.structs.replace(PLAN, steps=(msgspec.structs.replace(STEP, **fields),))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (change_step(new="3"), "upgrade alpha:all 1 -> 2: became upgrade alpha:all 1 -> 3"),
        (change_step(sha256="cd" * 32), "upgrade alpha:all 1 -> 2: the archive's content changed"),
        (
            change_step(origin="Else"),
            "upgrade alpha:all 1 -> 2: its origin, size or reason changed",
        ),
        (change_step(name="beta"), "upgrade alpha:all 1 -> 2: is gone"),
        (msgspec.structs.replace(PLAN, removals=True), "removals was False and is True"),
        (msgspec.structs.replace(PLAN, disk_change_bytes=0), "became 10 B and +0 B"),
    ],
)
def test_a_difference_is_named(now: PatchPlan, words: str) -> None:
    assert any(words in difference for difference in find_differences(PLAN, now))


def test_a_plan_for_people_has_its_digest_and_every_step() -> None:
    assert render_plan(PLAN) == (
        f"patch plan {PLAN.digest()}\n"
        "  upgrade alpha:all 1 -> 2  (on offer; Test:stable)\n"
        "  10 B to fetch, -4096 B on disk\n"
    )
    assert "nothing to do" in render_plan(msgspec.structs.replace(PLAN, steps=()))
