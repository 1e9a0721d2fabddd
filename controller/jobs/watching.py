"""Follow a job: what is known of it, then what happens, until every task is over.

What is looked at again and again is little: which state each task is in, and how much it
has printed. Only what that shows to be new is read. So a job for ten thousand machines can be
followed while all of them are at work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row

from controller.db.database import Database
from controller.jobs import advance, reading
from controller.jobs.feed import Feed, set_or_timeout
from controller.jobs.rollout import Phase
from controller.jobs.state import is_over
from controller.jobs.views import RolloutView, rollouts_of

LOOK_EVERY = timedelta(seconds=5)
"""How long a hint may be lost before somebody looks all the same."""

REST_FOR_EACH = timedelta(microseconds=20)
"""A look costs by the number of tasks, and so does the rest after it."""

PAGE = 64
"""Pieces of output that are read at a time."""

RESULTS_BYTES = 1024 * 1024
AT_ONCE = 500
"""Tasks whose results are read together have so many bytes of them; or it is a single one."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A task that is in another state than before, and its result."""

    task: Row[Any]
    result: bytes


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look saw: all tasks in a few words, and those in another state whole."""

    marks: Sequence[Row[Any]]
    changed: Sequence[Row[Any]]
    rollout: RolloutView | None


async def watch(
    db: Database, feed: Feed, job: str
) -> AsyncGenerator[Changed | RolloutView | Row[Any], None]:
    """Tasks that changed, rows of new output, and the rollout when that is another way."""
    states: dict[str, str] = {}
    heard: dict[str, int] = {}
    following: dict[str, int] = {}
    rollout: RolloutView | None = None
    with feed.listening(job) as event:
        while True:
            event.clear()
            seen = await _look(db, job, states, rollout)
            # First, for a task that is seen to be over has printed all it will.
            for mark in seen.marks:
                if mark.output_bytes != heard.get(mark.id, 0):
                    heard[mark.id] = mark.output_bytes
                    async for piece in _printed(db, mark.id, following.get(mark.id, 0)):
                        following[mark.id] = piece.seq + 1
                        yield piece
            async for change in _whole(db, seen.changed):
                states[change.task.id] = change.task.state
                yield change
            # Last, so that who is told of a halt has been told why.
            if seen.rollout != rollout:
                rollout = seen.rollout
                assert rollout is not None
                yield rollout
            ended = rollout is None or rollout.course.phase is Phase.OVER
            if ended and all(map(is_over, states.values())):
                return
            await asyncio.sleep((REST_FOR_EACH * len(states)).total_seconds())
            await set_or_timeout(event, LOOK_EVERY)


async def _look(
    db: Database, job: str, states: Mapping[str, str], rollout: RolloutView | None
) -> _Seen:
    def look(connection: Connection) -> _Seen:
        marks = reading.marks_of(connection, job)
        changed = [mark.id for mark in marks if states.get(mark.id) != mark.state]
        rows = reading.tasks_named(connection, job, changed)
        return _Seen(marks, rows, _rollout_now(connection, job, rollout))

    return await db.read(look)


def _rollout_now(connection: Connection, job: str, known: RolloutView | None) -> RolloutView | None:
    """How the rollout stands; its terms, once they are known, stay what was signed."""
    if known is None:
        return rollouts_of(connection, [job]).get(job)
    row = advance.course_row(connection, job)
    return known if row is None else replace(known, course=advance.course_of(row))


async def _printed(db: Database, task: str, number: int) -> AsyncIterator[Row[Any]]:
    """What a task has printed from a piece's number on, one page at a time."""
    while True:
        page = await _page(db, task, number)
        for piece in page:
            number = piece.seq + 1
            yield piece
        if len(page) < PAGE:
            return


async def _page(db: Database, task: str, number: int) -> Sequence[Row[Any]]:
    return await db.read(lambda c: reading.output_after(c, task, number, PAGE))


async def _whole(db: Database, rows: Sequence[Row[Any]]) -> AsyncIterator[Changed]:
    """Tasks with their results, of which few are in memory at a time."""
    for some in in_bulks(rows):
        results = await _results(db, [task.id for task in some if task.result_bytes])
        for task in some:
            yield Changed(task, results.get(task.id, b""))


async def _results(db: Database, tasks: Sequence[str]) -> Mapping[str, bytes]:
    return await db.read(lambda c: reading.results_of(c, tasks)) if tasks else {}


def in_bulks(rows: Iterable[Row[Any]]) -> Iterator[Sequence[Row[Any]]]:
    """The rows, so many together as `RESULTS_BYTES` and `AT_ONCE` allow."""
    some: list[Row[Any]] = []
    size = 0
    for row in rows:
        if some and (size + row.result_bytes > RESULTS_BYTES or len(some) == AT_ONCE):
            yield some
            some, size = [], 0
        some.append(row)
        size += row.result_bytes
    if some:
        yield some
