"""Jobs as records and in words, for every command that shows some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.text import Text

from controller.cli.orders.outcomes import (
    result_of,
    task_rows,
)
from controller.cli.output.emit import (
    console,
    from_wire_ms,
    printable,
)
from protocol.v1.job_pb2 import (
    Job,
    RolloutStatus,
)
from protocol.v1.link_pb2 import OutputStream, TaskOutput


def job_row(job: Job) -> dict[str, Any]:
    """A job as a record, without its tasks."""
    # Listings count them, since a job may have thousands.
    states = dict(job.states) or dict(Counter(task.state for task in job.tasks))
    return {
        "job": job.job_id,
        "action": job.action,
        "summary": job.summary,
        "operator": job.operator,
        "submitted_at": from_wire_ms(job.submitted_at_ms),
        "deliver_by_at": from_wire_ms(job.deliver_by_ms),
        "reason": job.reason,
        "machines": sum(states.values()),
        "states": states,
        "rollout": rollout_row(job.rollout) if job.HasField("rollout") else None,
        **_signatures(job),
    }


def _signatures(job: Job) -> dict[str, Any]:
    """Who signed the order, and how many have still to; nothing in listings, which say neither."""
    if not job.signers:
        return {}
    return {
        "signed_by": [one.name for one in job.signers if not one.proposed] or None,
        "proposed_by": [one.name for one in job.signers if one.proposed] or None,
        "signatures_missing": job.signatures_missing,
    }


def rollout_row(rollout: RolloutStatus) -> dict[str, Any]:
    """A rollout as a record."""
    return {
        "phase": rollout.phase,
        "reason": rollout.reason,
        "batch": rollout.batch,
        "batches": rollout.batch_sizes,
        "soak_s": rollout.soak_s,
        "soaked_at": from_wire_ms(rollout.soaked_at_ms),
        "max_failures": rollout.max_failures,
    }


def render_terms(rollout: RolloutStatus) -> str:
    """What was ordered, in a line."""
    soak = f", {rollout.soak_s} s apart" if rollout.soak_s else ""
    return f"batches {rollout.batch_sizes}{soak}, {rollout.max_failures} may fail"


def render_progress(row: Mapping[str, Any]) -> str:
    """Where a job's tasks are, and that its rollout is halted if it is."""
    halted = row["rollout"] is not None and row["rollout"]["phase"] == "halted"
    return ("halted: " if halted else "") + render_states(row["states"])


CELLS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"states": render_progress}


def render_states(states: Mapping[str, int]) -> str:
    """How many tasks are where.

    >>> render_states({"succeeded": 3, "failed": 1}), render_states({"queued": 1})
    ('3 succeeded, 1 failed', 'queued')
    """
    if len(states) == 1 and sum(states.values()) == 1:
        return next(iter(states))
    ordered = sorted(states.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count} {state}" for state, count in ordered)


def text_of(output: Sequence[TaskOutput], task: str) -> str:
    """What a task's program printed, both streams in the order in which it came."""
    pieces = [
        piece.data
        for piece in output
        if piece.task_id == task and piece.stream != OutputStream.OUTPUT_STREAM_PROGRESS
    ]
    return b"".join(pieces).decode(errors="backslashreplace")


def whole_tasks(job: Job, output: Sequence[TaskOutput]) -> list[dict[str, Any]]:
    """A job's tasks as records, with their results and what they printed."""
    rows = task_rows(job)
    for row, task in zip(rows, job.tasks, strict=True):
        row["machine_id"] = task.machine_id
        row["result"] = result_of(task)
        row["output"] = text_of(output, task.task_id)
        row["output_truncated"] = task.output_truncated
    return rows


def print_output(machine: str, text: str) -> None:
    """Show what a machine printed, below a title; nothing of it steers the terminal."""
    if not text:
        return
    target = console()
    target.print(Text(f"\n{printable(machine)} printed:", style="bold"))
    safe = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
    target.out(safe.rstrip("\n"), highlight=False)


def shortened(summary: str, most: int = 60) -> str:
    """A summary for a column of a table."""
    return summary if len(summary) <= most else f"{summary[: most - 1]}…"
