"""What a large fleet costs the controller: listings, jobs that are followed, rollouts.

    python -m bench.desk [--machines 10000] [--jobs 30]

A made-up database: each machine with two inventories and 30 restore points, and jobs that
name all of them. The figures are processor time of the functions that answer, without the
making of messages and without the wire; the second of two calls. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from bench.selectors import ANN, NOW, TENANT
from bench.selectors import _fill as fill_machines
from bench.selectors import _id as machine_id
from controller.db.database import Database
from controller.db.schema import jobs, points, rollouts, tasks
from controller.fleet.machines import listed as list_machines
from controller.jobs import advance, progress, reading, views
from protocol.action import RunProgram
from protocol.codec import encode_envelope, encode_order
from protocol.identity import MachineIdentity
from protocol.ids import MachineId, OrderId, TenantId
from protocol.order import Envelope, Order
from protocol.rollout import Amount, Rollout, parse_batches
from tests.fakes.new_database import new_database

POINTS = 30
MACHINE = MachineIdentity(TenantId(TENANT), MachineId(machine_id(7)))
TERMS = Rollout(parse_batches("1,10%,100%"), 0, Amount())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        db = Database.open(new_database(Path(directory) / "stead.db"))
        db.write_now(lambda c: fill_machines(c, given.machines, 40, 200))
        db.write_now(lambda c: _fill(c, given.machines, given.jobs))
        _measure(db, given.machines, given.jobs)
        db.close_now()


def _measure(db: Database, machines: int, count: int) -> None:
    last = _job(count - 1)
    terms = advance.Terms(
        last,
        TENANT,
        TERMS,
        {machine_id(number): number for number in range(machines)},
    )
    looks: dict[str, Callable[[Connection], Any]] = {
        "all machines, with all that is known of them": lambda c: list_machines(c, ANN),
        "all machines in brief, for a selector": lambda c: list_machines(c, ANN, brief=True),
        "one machine, with all that is known of it": lambda c: list_machines(c, ANN, named=["m7"]),
        f"{count} jobs, their tasks counted": lambda c: _list(c, count, views.Told.COUNTED),
        f"{count} jobs, none counted": lambda c: _list(c, count, views.Told.BRIEF),
        "what waits for a machine": lambda c: progress.open_tasks(c, MACHINE),
        "a look at a job that is watched": lambda c: reading.marks_of(c, last),
        "all tasks of a job": lambda c: reading.task_rows(c, [last], with_results=False),
        "a look at a rollout": lambda c: advance.look(c, terms, lambda _: True, datetime.now(UTC)),
        "which rollouts are under way": advance.under_way,
    }
    print(f"| {machines:,} machines | processor time |\n|---|---:|")
    for name, look in looks.items():
        took = [_timed(db, look) for _ in range(2)]
        print(f"| {name} | {took[-1] * 1000:.0f} ms |")


def _timed(db: Database, look: Callable[[Connection], Any]) -> float:
    began = time.process_time()
    db.read_now(look)
    return time.process_time() - began


def _list(connection: Connection, count: int, told: views.Told) -> list[views.JobView]:
    rows = reading.job_rows(connection, ANN, reading.Wanted(), limit=count)
    return views.listed(connection, rows, "", told)


def _job(number: int) -> str:
    return f"or_{number:026}"


def _fill(connection: Connection, machines: int, count: int) -> None:
    for number in range(machines):
        connection.execute(insert(points), [_point(number, age) for age in range(POINTS)])
    for job in range(count):
        at = NOW + timedelta(hours=job)
        order = Order(
            id=OrderId(_job(job)),
            tenant=TenantId(TENANT),
            machines=tuple(MachineId(machine_id(number)) for number in range(machines)),
            action=RunProgram(("true",)),
            issued_at=at,
            not_before=at,
            deliver_by=at + timedelta(days=1),
            timeout=timedelta(minutes=1),
            rollout=TERMS,
        )
        connection.execute(
            insert(jobs).values(
                id=_job(job),
                tenant_id=TENANT,
                action="run_program",
                envelope=encode_envelope(Envelope(encode_order(order), ())),
                operator="ann",
                operator_role="admin",
                submitted_at=at,
                deliver_by=at + timedelta(days=1),
                timeout_s=60,
                reason="",
                summary="run true",
            )
        )
        connection.execute(
            insert(tasks),
            [
                {
                    "id": f"ts_{job:010}{number:016}",
                    "job_id": _job(job),
                    "tenant_id": TENANT,
                    "machine_id": machine_id(number),
                    "state": "running" if job == count - 1 else "succeeded",
                    "started_at": at,
                    "output_truncated": False,
                    "output_bytes": 200,
                }
                for number in range(machines)
            ],
        )
    connection.execute(
        insert(rollouts).values(
            job_id=_job(count - 1),
            tenant_id=TENANT,
            batch=2,
            phase="halted",
            forgiven=0,
            reason="",
        )
    )


def _point(machine: int, age: int) -> dict[str, object]:
    return {
        "id": f"rp_{machine:013}{age:013}",
        "tenant_id": TENANT,
        "machine_id": machine_id(machine),
        "received_at": NOW - timedelta(days=age),
        "started_at": NOW - timedelta(days=age),
        "record": bytes(400),
        "root_id": bytes(32),
        "files": 1,
        "bytes": 1,
        "new_bytes": 1,
        "skipped": 0,
        "object_key": f"points/{machine}/{age}",
    }


if __name__ == "__main__":
    main()
