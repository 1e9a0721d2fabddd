"""Decide what a rollout does next: whom it releases, whether it halts, whether it is over.

Pure: the terms, how all tasks stand and the time come in, a decision with a reason goes
out. Acting on it is `controller.jobs.advance`'s job. A decision that was acted on leads
to no other one at the same time, so one that was lost in a crash is simply made again.

A place in a batch is for a machine that is linked: a laptop in a drawer does not stand
in for a trial. Whoever was released and went away before it got its order gives its place
back. The last batch is for everybody, linked or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from controller.jobs.state import AT_WORK, QUEUED, WAITING, is_over
from protocol.outcome import OutcomeState
from protocol.rollout import Rollout

FAILURES = frozenset(
    {
        OutcomeState.FAILED,
        OutcomeState.TIMED_OUT,
        OutcomeState.REJECTED,
        OutcomeState.INDETERMINATE,
    }
)
"""Ends that count against the limit. A machine that never appeared has not failed, and one
that left something out has said so."""

NAMED = 3
"""How many machines a reason names."""


class Phase(StrEnum):
    """Where a rollout is."""

    ROLLING = "rolling"
    SOAKING = "soaking"
    HALTED = "halted"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Standing:
    """How one task stands; in the order in which the operator signed the machines."""

    task: str
    state: str
    linked: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """What is remembered of a rollout.

    `batch` counts from 0. `soaked_at` is when the pause after the batch ends, once the
    batch is over. `forgiven` failures were there when an operator let it go on.
    """

    batch: int = 0
    phase: Phase = Phase.ROLLING
    soaked_at: datetime | None = None
    forgiven: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: tasks to release, tasks to take back, and what to remember then."""

    course: Course
    release: tuple[str, ...] = ()
    recall: tuple[str, ...] = ()


def decide(rollout: Rollout, course: Course, tasks: Sequence[Standing], now: datetime) -> Decision:
    """What to do now; the course is the same as before when there is nothing to do."""
    waiting = [task for task in tasks if task.state == WAITING]
    queued = [task for task in tasks if task.state == QUEUED]
    if course.phase is Phase.HALTED and waiting:
        return Decision(course, recall=tuple(task.task for task in queued))
    if not waiting and all(is_over(task.state) for task in tasks):
        return Decision(
            replace(course, phase=Phase.OVER, soaked_at=None, reason="every task is over")
        )
    if course.phase is Phase.OVER:
        course = replace(course, phase=Phase.ROLLING)
    failures = failed(tasks)
    if failures - course.forgiven > rollout.max_failures.at_most(len(tasks)) and (
        waiting or queued
    ):
        return Decision(_halted(rollout, course, tasks), recall=tuple(t.task for t in queued))
    return _rolling(rollout, course, tasks, now)


def failed(tasks: Sequence[Standing]) -> int:
    """How many tasks came to an end that counts against the limit."""
    return sum(task.state in FAILURES for task in tasks)


def resumed(course: Course, tasks: Sequence[Standing]) -> Course:
    """The course of a halted rollout that an operator lets go on: what failed is forgiven."""
    return replace(
        course,
        phase=Phase.ROLLING,
        forgiven=failed(tasks),
        reason=f"resumed with {failed(tasks)} failed",
    )


def _halted(rollout: Rollout, course: Course, tasks: Sequence[Standing]) -> Course:
    bad = [task.name or task.task for task in tasks if task.state in FAILURES]
    beyond = f", {course.forgiven} of them before it was resumed" if course.forgiven else ""
    allowed = rollout.max_failures.at_most(len(tasks))
    return replace(
        course,
        phase=Phase.HALTED,
        soaked_at=None,
        reason=f"{len(bad)} of {len(tasks)} failed{beyond}, {allowed} may: {_names(bad)}",
    )


def _rolling(
    rollout: Rollout, course: Course, tasks: Sequence[Standing], now: datetime
) -> Decision:
    """Fill the places of the batch, or end it and begin the next one that has any."""
    count = len(rollout.batches)
    while True:
        last = course.batch >= count - 1
        recall = () if last else tuple(t.task for t in tasks if t.state == QUEUED and not t.linked)
        taken = sum(task.state != WAITING for task in tasks) - len(recall)
        places = max(0, _size(rollout, course.batch, len(tasks)) - taken)
        ready = [t.task for t in tasks if t.state == WAITING and (last or t.linked)]
        release = tuple(ready[:places])
        at_work = sum(t.state in AT_WORK for t in tasks) - len(recall) + len(release)
        if places or at_work or last:
            released = frozenset(release)
            away = sum(
                not t.linked and (t.state == QUEUED or t.task in released) for t in tasks
            ) - len(recall)
            waits = _waits_for(at_work - away, places - len(release) + away)
            reason = f"batch {course.batch + 1} of {count} waits for {waits}"
            rolling = replace(course, phase=Phase.ROLLING, soaked_at=None, reason=reason)
            return Decision(rolling, release, recall)
        if course.soaked_at is None and rollout.soak:
            soaking = f"batch {course.batch + 1} of {count} is over and soaks"
            soaked_at = now + rollout.soak
            return Decision(
                replace(course, phase=Phase.SOAKING, soaked_at=soaked_at, reason=soaking),
                recall=recall,
            )
        if course.soaked_at is not None and now < course.soaked_at:
            return Decision(course, recall=recall)
        following = course.batch + 1
        while following < count - 1 and _size(rollout, following, len(tasks)) <= taken:
            following += 1
        course = replace(course, batch=following, soaked_at=None)


def _size(rollout: Rollout, batch: int, total: int) -> int:
    """How many machines have the order once a batch has begun."""
    if batch >= len(rollout.batches) - 1:
        return total
    return rollout.batches[batch].at_least(total)


def _waits_for(at_work: int, away: int) -> str:
    parts = []
    if at_work:
        parts.append(f"{at_work} at work")
    if away:
        parts.append(f"{away} more to be linked")
    return " and ".join(parts)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
