"""Follow a job to its end: on a terminal with a board, elsewhere in lines."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import grpc
from rich.console import Console
from rich.live import Live

from controller import clock
from controller.cli.operator.connection import Connection
from controller.cli.operator.streams import answers_of
from controller.cli.orders.board import Board, render_rollout
from controller.cli.orders.outcomes import waits_for
from controller.cli.orders.waiting import say_unlinked
from controller.cli.output.emit import note
from controller.cli.output.exits import OVER
from controller.cli.output.printed import Printer
from protocol.errors import Code
from protocol.v1.job_pb2 import GetJobRequest, Job, RolloutStatus, Task, WatchJobRequest
from protocol.v1.link_pb2 import OutputStream, TaskOutput

PATIENCE = timedelta(minutes=2)
"""How long a watcher waits for a controller that went away."""

REFRESHES_PER_S = 4


def job_now(connection: Connection, job: str) -> Job:
    """A job with its tasks as they are, without their results, which may be too much at once."""
    request = GetJobRequest(job_id=job, without_results=True)
    return connection.jobs.GetJob(request).job


def follow(
    connection: Connection,
    job: Job,
    *,
    live: bool,
    lines: bool = False,
    goes_on: bool = True,
    only: Collection[str] | None = None,
) -> Job:
    """Watch a job until every task is over, or its rollout is halted; the job as it then is.

    `live` prints what the tasks print. Where standard error is no terminal, `lines` says
    what becomes of each machine. Outlives a controller that restarts. Ctrl-C ends the
    watching and nothing else, and says so where the job `goes_on` then. `only` are the ids
    of the machines that are waited for; None is all.
    """
    try:
        return _watch(connection, job, only, live=live, lines=lines)
    except KeyboardInterrupt:
        if goes_on:
            note(
                f"The job goes on. Watch it with `stead job watch {job.job_id}`; end it with "
                f"`stead job cancel {job.job_id}`."
            )
        raise


def _watch(
    connection: Connection, job: Job, only: Collection[str] | None, *, live: bool, lines: bool
) -> Job:
    board = Board.of(job)
    names = {task.task_id: task.machine_name for task in job.tasks}
    tasks = {task.task_id: task for task in job.tasks}
    printer = Printer(names)
    if only is None:
        say_unlinked(connection, job)
    awaited = {task.task_id for task in job.tasks if only is None or task.machine_id in only}
    # The stream begins with every task as it is; the job that came in has no results.
    unheard, left = set(tasks), set(awaited)
    on_terminal = sys.stderr.isatty()
    with closing(printer), _shown(board, enabled=on_terminal and not live):
        for event in _events(connection, job.job_id) if awaited else ():
            before = tasks.get(event.task_id) if isinstance(event, Task) else None
            board.saw(event)
            if isinstance(event, TaskOutput):
                if live and event.stream != OutputStream.OUTPUT_STREAM_PROGRESS:
                    printer.print(event)
                continue
            if isinstance(event, Task):
                tasks[event.task_id] = event
                unheard.discard(event.task_id)
                if event.state in OVER:
                    left.discard(event.task_id)
            if live or (lines and not on_terminal):
                _say(job, event, before, lines=lines and not live)
            if (board.is_over and not unheard) or (only is not None and not left):
                break
    followed = Job()
    followed.CopyFrom(job)
    del followed.tasks[:]
    followed.tasks.extend(tasks.values())
    if board.rollout is not None:
        followed.rollout.CopyFrom(board.rollout)
    return followed


@contextmanager
def _shown(board: Board, *, enabled: bool) -> Iterator[None]:
    if not enabled:
        yield
        return
    console = Console(stderr=True)

    def render() -> object:
        return board.render(clock.now(), console.width, console.height)

    with Live(
        console=console,
        get_renderable=render,  # type: ignore[arg-type]
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
    ):
        yield


def _say(job: Job, event: Task | RolloutStatus, before: Task | None, *, lines: bool) -> None:
    if isinstance(event, RolloutStatus):
        if event.phase != "halted":
            note(render_rollout(event, clock.now()))
        return
    if not lines or (before is not None and before.state == event.state):
        return
    said = event.message if event.state in OVER else waits_for(job, event.state)
    why = f": {said}" if said else ""
    note(f"{event.machine_name}: {event.state}{why}")


def _events(connection: Connection, job: str) -> Iterator[Task | TaskOutput | RolloutStatus]:
    """What happens to a job, once each, across interruptions of the call."""
    seen: dict[str, int] = {}
    while True:
        call = connection.jobs.WatchJob(WatchJobRequest(job_id=job))
        try:
            with closing(answers_of(call)) as answers:
                for response in answers:
                    if response.HasField("task"):
                        yield response.task
                    elif response.HasField("rollout"):
                        yield response.rollout
                    elif response.output.sequence >= seen.get(response.output.task_id, 0):
                        seen[response.output.task_id] = response.output.sequence + 1
                        yield response.output
        except grpc.RpcError as error:
            if connection.explain(error).code is not Code.UNAVAILABLE:
                raise
            _wait_until_reachable(connection, error)
        else:
            return


def _wait_until_reachable(connection: Connection, error: grpc.RpcError) -> None:
    note("The controller went away; the job goes on. Waiting for it to come back.")
    try:
        grpc.channel_ready_future(connection.channel).result(timeout=PATIENCE.total_seconds())
    except grpc.FutureTimeoutError:
        raise error from None
