"""The laws of rollouts, over made-up fleets in which anything may happen at any time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.jobs.rollout import (
    FAILURES,
    Course,
    Decision,
    Phase,
    Standing,
    decide,
    failed,
    resumed,
)
from controller.jobs.state import AT_WORK, OFFERED, QUEUED, RUNNING, WAITING, is_over
from protocol.errors import InvalidError
from protocol.outcome import OutcomeState
from protocol.rollout import (
    EVERYTHING,
    Amount,
    Rollout,
    check_rollout,
    parse_batches,
    render_batches,
)

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)
STATES = (WAITING, *AT_WORK, *(state.value for state in OutcomeState))

amounts = st.builds(Amount, machines=st.integers(1, 30)) | st.builds(
    Amount, percent=st.integers(1, 100)
)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    machines = sorted(draw(st.sets(st.integers(1, 30), max_size=3)))
    shares = sorted(draw(st.sets(st.integers(1, 99), max_size=3)))
    batches = (
        *(Amount(machines=one) for one in machines),
        *(Amount(percent=one) for one in shares),
        EVERYTHING,
    )
    limit = draw(st.just(Amount()) | amounts)
    return Rollout(batches, draw(st.sampled_from([0, 60, 3600])), limit)


standings = st.lists(
    st.builds(
        Standing,
        task=st.uuids().map(str),
        state=st.sampled_from(STATES),
        linked=st.booleans(),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one.task,
)
courses = st.builds(
    Course,
    batch=st.integers(0, 5),
    phase=st.sampled_from(Phase),
    soaked_at=st.none() | st.just(NOW) | st.just(NOW + timedelta(minutes=5)),
    forgiven=st.integers(0, 5),
)


def acted_on(tasks: Sequence[Standing], decision: Decision) -> list[Standing]:
    """The tasks once a decision is carried out."""
    return [
        replace(task, state=QUEUED)
        if task.task in decision.release
        else replace(task, state=WAITING)
        if task.task in decision.recall
        else task
        for task in tasks
    ]


def size(rollout: Rollout, batch: int, total: int) -> int:
    if batch >= len(rollout.batches) - 1:
        return total
    return rollout.batches[batch].at_least(total)


@given(rollouts(), courses, standings)
def test_no_batch_releases_more_than_its_places(
    rollout: Rollout, course: Course, tasks: list[Standing]
) -> None:
    decision = decide(rollout, course, tasks, NOW)
    after = acted_on(tasks, decision)
    if decision.release:
        taken = sum(task.state != WAITING for task in after)
        assert taken <= size(rollout, decision.course.batch, len(tasks))


@given(rollouts(), courses, standings)
def test_nobody_is_released_beyond_the_limit_of_failures(
    rollout: Rollout, course: Course, tasks: list[Standing]
) -> None:
    beyond = failed(tasks) - course.forgiven > rollout.max_failures.at_most(len(tasks))
    decision = decide(rollout, course, tasks, NOW)
    if beyond:
        assert not decision.release
    if beyond and any(task.state in (WAITING, QUEUED) for task in tasks):
        assert decision.course.phase is Phase.HALTED
        assert not any(task.state == QUEUED for task in acted_on(tasks, decision))


@given(rollouts(), courses, standings)
def test_what_was_acted_on_is_not_decided_otherwise(
    rollout: Rollout, course: Course, tasks: list[Standing]
) -> None:
    decision = decide(rollout, course, tasks, NOW)
    after = acted_on(tasks, decision)
    again = decide(rollout, decision.course, after, NOW)
    assert again == Decision(decision.course)


@given(rollouts(), courses, standings)
def test_only_who_waits_is_released_and_only_the_undelivered_are_taken_back(
    rollout: Rollout, course: Course, tasks: list[Standing]
) -> None:
    states = {task.task: task.state for task in tasks}
    decision = decide(rollout, course, tasks, NOW)
    assert all(states[task] == WAITING for task in decision.release)
    assert all(states[task] == QUEUED for task in decision.recall)


@given(rollouts(), courses, standings)
def test_a_pause_is_never_cut_short(
    rollout: Rollout, course: Course, tasks: list[Standing]
) -> None:
    soaking = replace(course, phase=Phase.SOAKING, soaked_at=NOW + timedelta(seconds=1))
    decision = decide(rollout, soaking, tasks, NOW)
    assert decision.course.batch == soaking.batch


@dataclass
class Fleet:
    """A made-up fleet that carries a rollout to its end, with a controller that may crash."""

    rollout: Rollout
    tasks: list[Standing]
    random: random.Random
    failing: float
    course: Course = field(default_factory=Course)
    now: datetime = NOW
    halts: int = 0

    def look(self) -> None:
        decision = decide(self.rollout, self.course, self.tasks, self.now)
        if self.random.random() < 0.2:
            return  # the controller crashed: nothing of it was kept
        self.tasks, self.course = acted_on(self.tasks, decision), decision.course
        self.check()

    def check(self) -> None:
        taken = sum(task.state != WAITING for task in self.tasks)
        assert taken <= size(self.rollout, self.course.batch, len(self.tasks))

    def live(self) -> None:
        self.now += timedelta(seconds=30)
        for place, task in enumerate(self.tasks):
            linked = self.random.random() < 0.7
            state = task.state
            if state == QUEUED and linked:
                state = OFFERED
            elif state == OFFERED:
                state = RUNNING
            elif state == RUNNING:
                bad = self.random.random() < self.failing
                state = self.random.choice(sorted(FAILURES)) if bad else "succeeded"
            self.tasks[place] = replace(task, state=state, linked=linked)


@given(rollouts(), st.integers(1, 30), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.5]))
def test_every_rollout_comes_to_an_end(
    rollout: Rollout, machines: int, seed: int, failing: float
) -> None:
    tasks = [Standing(str(number), WAITING, linked=False) for number in range(machines)]
    fleet = Fleet(rollout, tasks, random.Random(seed), failing)
    for _ in range(3000):
        fleet.look()
        if fleet.course.phase is Phase.OVER:
            break
        if fleet.course.phase is Phase.HALTED and not any(
            task.state in AT_WORK for task in fleet.tasks
        ):
            assert failed(fleet.tasks) > rollout.max_failures.at_most(machines)
            fleet.course = resumed(fleet.course, fleet.tasks)
            fleet.halts += 1
        fleet.live()
    assert fleet.course.phase is Phase.OVER
    assert all(is_over(task.state) for task in fleet.tasks)
    if not failed(fleet.tasks):
        assert fleet.halts == 0


@given(rollouts())
def test_batches_are_read_as_they_are_written(rollout: Rollout) -> None:
    assert parse_batches(render_batches(rollout.batches)) == rollout.batches
    check_rollout(rollout)


@given(st.text(alphabet="0123456789%, x", max_size=20))
def test_any_text_is_batches_or_a_named_error(text: str) -> None:
    try:
        batches = parse_batches(text)
    except InvalidError:
        return
    assert batches[-1] == EVERYTHING


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "10%,50%",
        "100%,100%",
        "5,5,100%",
        "9%,9%,100%",
        "5,3,100%",
        "50%,10%,100%",
        "0,100%",
        "101%",
        "-1",
    ],
)
def test_batches_that_leave_somebody_out_or_shrink_are_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_batches(text)


@given(rollouts(), courses, st.lists(st.sampled_from(list(OutcomeState)), min_size=1))
def test_whatever_came_before_a_job_whose_tasks_are_over_is_over(
    rollout: Rollout, course: Course, ends: list[OutcomeState]
) -> None:
    """Also one that was halted, and then cancelled."""
    tasks = [Standing(str(number), end.value, linked=False) for number, end in enumerate(ends)]
    assert decide(rollout, course, tasks, NOW).course.phase is Phase.OVER


def test_a_batch_without_a_place_of_its_own_is_no_batch() -> None:
    """Of 20 machines 10 % are the two that the first batch has already: no second pause."""
    rollout = Rollout((Amount(machines=2), Amount(percent=10), EVERYTHING), soak_s=60)
    tasks = [Standing(str(n), "succeeded" if n < 2 else WAITING, linked=True) for n in range(20)]
    soaking = decide(rollout, Course(), tasks, NOW).course
    assert (soaking.phase, soaking.batch) == (Phase.SOAKING, 0)
    later = decide(rollout, soaking, tasks, NOW + timedelta(seconds=60))
    assert (later.course.batch, len(later.release)) == (2, 18)


def test_in_the_last_batch_it_is_said_who_is_waited_for() -> None:
    states = ((RUNNING, True), (QUEUED, False), (WAITING, False), (OFFERED, False))
    tasks = [Standing(f"ts_{place}", *one) for place, one in enumerate(states)]
    last = Course(batch=1)
    decision = decide(Rollout(parse_batches("1,100%")), last, tasks, NOW)
    assert decision.release == ("ts_2",)
    assert decision.course.reason == "batch 2 of 2 waits for 2 at work and 2 more to be linked"
    after = [replace(task, state=QUEUED if task.state == WAITING else task.state) for task in tasks]
    again = decide(Rollout(parse_batches("1,100%")), decision.course, after, NOW)
    assert again.course == decision.course
