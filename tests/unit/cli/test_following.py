"""What a watched job is when the watching ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from controller.cli.operator.connection import Connection
from controller.cli.orders.following import follow
from protocol.v1.job_pb2 import Job, Task, WatchJobRequest, WatchJobResponse
from protocol.v1.operator_pb2 import ListMachinesRequest, ListMachinesResponse


class Told:
    """A controller that tells of these tasks, one after the other."""

    def __init__(self, *tasks: Task) -> None:
        self.jobs = self.machines = self
        self._tasks = tasks

    def WatchJob(self, _: WatchJobRequest) -> Any:  # noqa: N802 - the name on the wire
        return _Stream(self._tasks)

    def ListMachines(self, _: ListMachinesRequest) -> ListMachinesResponse:  # noqa: N802
        return ListMachinesResponse()


class _Stream:
    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._tasks = tasks

    def __iter__(self) -> Iterator[WatchJobResponse]:
        for task in self._tasks:
            yield WatchJobResponse(task=task)

    def cancel(self) -> None: ...


def test_of_a_job_that_is_over_every_result_is_heard() -> None:
    ids = [f"ts_{number}" for number in range(3)]
    known = Job(tasks=[Task(task_id=one, state="succeeded") for one in ids])
    told = [Task(task_id=one, state="succeeded", result=one.encode()) for one in ids]
    followed = follow(cast("Connection", Told(*told)), known, live=False)
    assert [task.result for task in followed.tasks] == [one.encode() for one in ids]


def test_who_is_not_waited_for_keeps_nobody() -> None:
    states = ("queued", "running")
    known = Job(tasks=[Task(task_id=one, machine_id=f"mc_{one}", state=one) for one in states])
    over = Task(task_id="running", machine_id="mc_running", state="succeeded")
    told = Told(*known.tasks, over, Task(task_id="queued", state="failed"))
    followed = follow(cast("Connection", told), known, live=False, only={"mc_running"})
    assert [task.state for task in followed.tasks] == ["queued", "succeeded"]
