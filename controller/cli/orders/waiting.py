"""Say for whom an order waits, before somebody watches nothing happen."""

from __future__ import annotations

from collections.abc import Sequence

from controller.cli.operator.choice import machines_of
from controller.cli.operator.connection import Connection
from controller.cli.output.emit import from_wire_ms, local_time, note, render_names
from controller.cli.output.exits import OVER
from protocol.v1.job_pb2 import Job
from protocol.v1.operator_pb2 import Machine


def say_unlinked(connection: Connection, job: Job) -> None:
    """Name the machines that a job waits for; says nothing when all are there."""
    waiting = {task.machine_id for task in job.tasks if task.state not in OVER}
    if said := unlinked_line(job, machines_of(connection, waiting)):
        note(said)


def unlinked_line(job: Job, machines: Sequence[Machine]) -> str:
    """What to say of the machines that hold no link; empty when all do."""
    linked = {machine.machine_id for machine in machines if machine.linked}
    away = [
        task.machine_name
        for task in job.tasks
        if task.state not in OVER and task.machine_id not in linked
    ]
    if not away:
        return ""
    says = "is not linked; waits" if len(away) == 1 else "are not linked; wait"
    deliver_by = from_wire_ms(job.deliver_by_ms)
    until = f" until {local_time(deliver_by):%Y-%m-%d %H:%M}" if deliver_by is not None else ""
    return f"{render_names(away)} {says}{until}; Ctrl-C ends the watching alone"
