"""Jobs with what belongs to them, as they are shown to operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row

from controller.jobs import advance, reading, signing
from controller.jobs.rollout import Course
from protocol.errors import SteadError
from protocol.rollout import Rollout


class Told(Enum):
    """What a listing tells of the tasks of its jobs."""

    ALL = "all of them, of fewer jobs where they are too many"
    COUNTED = "how many are in which state, and that of the machine that is named"
    BRIEF = "that of the machine that is named"


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout: what the operator signed, and how it stands.

    `terms` is None for an order that this release cannot read.
    """

    terms: Rollout | None
    course: Course


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its tasks, and the output of its tasks where that was asked for.

    `signed` is what operators signed, and who; None in listings. `states` counts its tasks in
    listings that were asked to.
    """

    job: Row[Any]
    tasks: Sequence[Row[Any]]
    output: Sequence[Row[Any]] = ()
    rollout: RolloutView | None = None
    signed: signing.Signed | None = None
    states: Mapping[str, int] = field(default_factory=dict)


def rollouts_of(connection: Connection, jobs: Sequence[str]) -> dict[str, RolloutView]:
    """The rollouts of those jobs that have one."""
    found = {}
    for row in reading.rollout_rows(connection, jobs):
        try:
            terms = advance.order_in(row.envelope).rollout
        except SteadError:
            # One order, as of a later release, must not hide all others.
            terms = None
        found[row.job_id] = RolloutView(terms, advance.course_of(row))
    return found


def listed(
    connection: Connection, rows: Sequence[Row[Any]], machine: str, told: Told
) -> list[JobView]:
    """Jobs of a listing, without the results of their tasks."""
    ids: Sequence[str] = [row.id for row in rows]
    states: Mapping[str, Mapping[str, int]] = {}
    if told is not Told.ALL:
        tasks = reading.tasks_of_machine(connection, ids, machine)
        if told is Told.COUNTED:
            states = reading.states_of(connection, ids)
    else:
        ids = reading.as_many_as_fit(connection, ids)
        tasks = reading.task_rows(connection, ids, with_results=False)
    rollouts = rollouts_of(connection, ids)
    return [
        JobView(row, tasks[row.id], rollout=rollouts.get(row.id), states=states.get(row.id, {}))
        for row in rows[: len(ids)]
    ]
