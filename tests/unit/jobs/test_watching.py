"""Following a job for many machines: nothing is missed, and little is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from sqlalchemy import Connection, insert

from controller.db.database import Database
from controller.db.schema import jobs, machines, tasks, tenants
from controller.jobs import progress
from controller.jobs.feed import Feed
from controller.jobs.watching import RESULTS_BYTES, Changed, in_bulks, watch
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, TaskId, TenantId
from protocol.outcome import Outcome, OutcomeState
from tests.fakes.new_database import new_database

AT = datetime(2026, 5, 4, 10, tzinfo=UTC)
TENANT = TenantId("tn_" + "0" * 26)
JOB = "or_" + "0" * 26
COUNT = 600
T = TypeVar("T")


class Counting(Database):
    """A database that counts what it is asked."""

    reads = 0

    async def read(self, fn: Callable[[Connection], T]) -> T:
        self.reads += 1
        return await super().read(fn)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Counting]:
    opened = cast("Counting", Counting.open(new_database(tmp_path / "stead.db")))
    await opened.write(_fill)
    yield opened
    await opened.close()


def machine(number: int) -> MachineIdentity:
    return MachineIdentity(TENANT, MachineId(f"mc_{number:026}"))


def task(number: int) -> TaskId:
    return TaskId(f"ts_{number:026}")


def _fill(connection: Connection) -> None:
    tenant = {"id": TENANT, "name": "acme", "dedup_scope": "tenant", "created_at": AT}
    connection.execute(insert(tenants), tenant)
    connection.execute(
        insert(machines),
        [
            {
                "id": machine(number).machine,
                "tenant_id": TENANT,
                "name": f"m{number:04}",
                "state": "active",
                "public_key_hash": f"{number:032}".encode(),
                "hostname": "",
                "agent_version": "",
                "enrolled_at": AT,
            }
            for number in range(COUNT)
        ],
    )
    job = {
        "id": JOB,
        "tenant_id": TENANT,
        "action": "run_program",
        "envelope": b"",
        "operator": "ann",
        "operator_role": "admin",
        "submitted_at": AT,
        "deliver_by": AT + timedelta(days=1),
        "timeout_s": 60,
        "reason": "",
        "summary": "",
    }
    connection.execute(insert(jobs), job)
    connection.execute(
        insert(tasks),
        [
            {
                "id": task(number),
                "job_id": JOB,
                "tenant_id": TENANT,
                "machine_id": machine(number).machine,
                "state": "running",
                "started_at": AT,
                "output_truncated": False,
                "output_bytes": 0,
            }
            for number in range(COUNT)
        ],
    )


async def printed(db: Database, number: int, sequence: int, data: bytes) -> None:
    said = machine(number), task(number), sequence, "stdout", data, AT
    await db.write(lambda c: progress.add_output(c, *said))


async def test_machines_that_are_at_work_and_say_nothing_cost_nothing(db: Counting) -> None:
    feed = Feed()
    async with aclosing(watch(db, feed, JOB)) as events, asyncio.timeout(60):
        for _ in range(COUNT):
            assert isinstance(await anext(events), Changed)
        for sequence in range(3):
            await printed(db, 7, sequence, b"x")
            feed.wake(JOB)
            piece: Any = await anext(events)
            assert (piece.task_id, piece.seq) == (task(7), sequence)
    assert db.reads < 20


async def test_what_was_printed_comes_before_the_end_and_results_with_it(db: Counting) -> None:
    for number in range(COUNT):
        for sequence in range(130 if number == 5 else 1):
            await printed(db, number, sequence, b"%d" % sequence)
        result = b"r%d" % number if number % 2 else b""
        outcome = Outcome(
            task(number), OutcomeState.SUCCEEDED, started_at=AT, ended_at=AT, result=result
        )
        await db.write(lambda c, o=outcome, n=number: progress.end(c, machine(n), o, AT))  # type: ignore[misc]
    heard = [event async for event in watch(db, Feed(), JOB)]
    ends = {e.task.id: (place, e.result) for place, e in enumerate(heard) if isinstance(e, Changed)}
    pieces: Any = [(place, e) for place, e in enumerate(heard) if not isinstance(e, Changed)]
    assert all(place < ends[piece.task_id][0] for place, piece in pieces)
    assert [p.seq for _, p in pieces if p.task_id == task(5)] == list(range(130))
    assert len(pieces) == COUNT - 1 + 130
    assert {ends[task(n)][1] for n in range(0, COUNT, 2)} == {b""}
    assert [ends[task(n)][1] for n in range(1, COUNT, 2)] == [
        b"r%d" % n for n in range(1, COUNT, 2)
    ]


@dataclass
class Sized:
    result_bytes: int


def test_few_results_are_in_memory_at_a_time() -> None:
    sizes = [0, RESULTS_BYTES * 9, 1, *[RESULTS_BYTES // 3] * 7, *[0] * 2000]
    rows: Any = [Sized(size) for size in sizes]
    bulks = list(in_bulks(rows))
    assert [row for some in bulks for row in some] == rows
    for some in bulks:
        assert len(some) == 1 or sum(row.result_bytes for row in some) <= RESULTS_BYTES
        assert len(some) <= 500
    assert list(in_bulks([])) == []
