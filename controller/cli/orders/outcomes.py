"""What became of a job's tasks: as records, as notes, and as an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from controller.cli.output.emit import emit, note
from controller.cli.output.exits import DONE, FAILED, IN_PART, NOT_IN_TIME, OVER, REFUSED
from protocol.errors import UNREADABLE, Code, InvalidError
from protocol.v1.job_pb2 import (
    Job,
    Task,
)

PROGRAMS = frozenset({"run_program", "run_script"})
"""Actions whose exit code is a program's."""

MANY = 20
"""Tasks that fit into most windows."""

PRINTING = PROGRAMS | {"read_log"}
"""Actions whose output is for people, as it comes."""


def exit_code(job: Job) -> int:
    """The exit code of cli.md that a finished job comes to."""
    states = [task.state for task in job.tasks]
    good = states.count("succeeded")
    if good == len(states):
        return DONE
    if good or "partial" in states:
        return IN_PART
    if all(state == "expired" for state in states):
        return NOT_IN_TIME
    if all(state == "rejected" for state in states):
        return REFUSED
    return FAILED


def heard(job: Job) -> int:
    """The exit code by those tasks alone that are over; 0 when none is."""
    over = Job(action=job.action, tasks=[task for task in job.tasks if task.state in OVER])
    return exit_code(over) if over.tasks else DONE


def task_rows(job: Job) -> list[dict[str, Any]]:
    """A job's tasks as records."""
    return [
        {
            "machine": task.machine_name,
            "state": task.state,
            "exit_code": task.exit_code
            if job.action in PROGRAMS and task.state in {"succeeded", "failed"}
            else None,
            "seconds": round((task.ended_at_ms - task.started_at_ms) / 1000, 2)
            if task.started_at_ms and task.ended_at_ms
            else None,
            "code": task.code,
            "message": task.message or waits_for(job, task.state),
            "task": task.task_id,
            "job": job.job_id,
        }
        for task in job.tasks
    ]


def waits_for(job: Job, state: str) -> str:
    """What a machine waits for that has got the order; empty when that is nothing.

    >>> waits_for(Job(windows=["03:00-05:00"]), "offered")
    'the machine has it, and begins within 03:00-05:00 of its own time'
    """
    if state != "offered" or not job.windows:
        return ""
    return f"the machine has it, and begins within {'; '.join(job.windows)} of its own time"


def result_of(task: Task) -> dict[str, Any]:
    """An action's result; empty when it has none."""
    if not task.result:
        return {}
    try:
        found = msgspec.json.decode(task.result)
    except UNREADABLE:
        found = None
    if not isinstance(found, dict):
        raise InvalidError(f"the result of {task.machine_name} is not a JSON object")
    return found


def say_failures(job: Job) -> None:
    """Tell the person about every task that did not succeed, and of a rollout's halt."""
    for task in job.tasks:
        if task.state in OVER - {"succeeded"}:
            why = task.message or task.code or "no reason given"
            if task.code == Code.UNKNOWN_FIELD:
                # What it said of "this side" is said on that side.
                why += " (its agent is older than what the order says: upgrade the agent)"
            note(f"{task.machine_name}: {task.state}: {why}")
    say_halted(job)


def say_halted(job: Job) -> None:
    """Tell the person why a rollout was halted, if it was, and what can be done."""
    if job.rollout.phase != "halted":
        return
    waiting = sum(task.state == "waiting" for task in job.tasks)
    note(
        f"Halted in batch {job.rollout.batch} of {job.rollout.batches}: {job.rollout.reason}. "
        f"{waiting} of {len(job.tasks)} machines have not got the order. Go on with "
        f"`stead job resume {job.job_id}`; end it with `stead job cancel {job.job_id}`."
    )


def say_remarks(job: Job) -> None:
    """Tell the person what tasks that succeeded have to say."""
    for task in job.tasks:
        if task.state == "succeeded" and task.message:
            note(f"{task.machine_name}: {task.message}")


def say_cut(job: Job) -> None:
    """Tell the person whose output is not whole."""
    for task in job.tasks:
        if task.output_truncated:
            note(f"{task.machine_name}: it printed more than is kept; the rest was cut off")


def finish(job: Job | None, output: str) -> int:
    """Say how a job ended, as a listing of its tasks; the exit code."""
    if job is None:
        return DONE
    return report(job, task_rows(job), output, columns=("machine", "state", "seconds", "message"))


def report(
    job: Job, rows: Sequence[Mapping[str, Any]], output: str, *, columns: Sequence[str]
) -> int:
    """Show how a job ended, with a row for each task in their order; the exit code.

    On a terminal, of many machines those are shown on which it did not succeed: hundreds of
    good ones would push them out of the window.
    """
    shown = list(rows)
    if output == "table" and sys.stdout.isatty() and len(rows) > MANY:
        pairs = zip(rows, job.tasks, strict=True)
        shown = [row for row, task in pairs if task.state != "succeeded"]
    emit(shown, output, columns=columns, empty=f"it succeeded on all {len(rows)} machines")
    if good := len(rows) - len(shown) if shown else 0:
        note(f"it succeeded on {good} more; `stead job show {job.job_id}` shows all")
    say_halted(job)
    return exit_code(job)
