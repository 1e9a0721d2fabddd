"""Show what became of orders to back up and to restore, and what a restore would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.cli.operator.connection import Connection
from controller.cli.options.terms import Terms
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code, result_of, say_failures, task_rows
from controller.cli.output.emit import Row, emit, note, render_bytes
from controller.cli.output.entries import text_of
from controller.cli.output.exits import DONE
from protocol.action import PlanRestore
from protocol.v1.job_pb2 import Job
from protocol.v1.operator_pb2 import Machine
from protocol.vault.point import Skipped

SHOWN = 10
_CHANGES = ("create", "overwrite", "attributes")
LEFT_OUT = {"skipped_paths": "skipped", "failed": "left", "warnings": "warned"}
"""Lists of a result in which each row has a path and a reason, and what counts all of each."""


def result_rows(job: Job) -> list[dict[str, Any]]:
    """What became of orders to back up or to restore, with the figures of their results."""
    rows = []
    for row, task in zip(task_rows(job), job.tasks, strict=True):
        figures = {**result_of(task)}
        # Seconds by phase: the row's own are those of the whole task.
        figures["phases"] = figures.pop("seconds", None)
        rows.append({**row, **figures})
    return rows


@dataclass(frozen=True, slots=True)
class Preview:
    """The exit code, and when the machine looked, in ms since 1970; 0 where it did not say."""

    code: int
    looked_at_ms: int = 0


def preview(
    connection: Connection, machine: Machine, action: PlanRestore, terms: Terms, output: str
) -> Preview:
    """Have the machine look what a restore would do, and show it."""
    job = order_and_follow(connection, [machine], action, terms, output=output)
    if job is None:
        return Preview(DONE)
    say_failures(job)
    rows = result_rows(job)
    removed = ("remove",) if action.delete_extra else ()
    columns = ("machine", "state", *_CHANGES, *removed, "same", "bytes")
    emit(rows, output, columns=columns, cells=SIZES)
    # Of several parts, each has a directory of its own.
    below = "" if action.parts else text_of(action.target.rstrip(b"/"))
    for row in rows:
        changes = row.get("changes") or []
        for change in changes[:SHOWN]:
            note(f"{row['machine']}: {change.get('change')} {below}{change.get('path')}")
        more = sum(row.get(name) or 0 for name in _CHANGES) - SHOWN
        if more > 0:
            note(f"{row['machine']}: and {more} more; --output json names up to 200")
        _say_removals(row, below)
        say_left_out(row, below=below)
    looked_at = rows[0].get("looked_at_ms") if rows else None
    return Preview(exit_code(job), looked_at if isinstance(looked_at, int) else 0)


def _say_removals(row: Mapping[str, Any], below: str) -> None:
    """Name everything that would be removed, and say how much stays for a reason."""
    named = row.get("remove_paths") or []
    for path in named:
        note(f"{row['machine']}: remove {below}{path}")
    more = (row.get("remove") or 0) - len(named)
    if more > 0:
        note(f"{row['machine']}: remove {more} more, which nobody has listed")
    say_kept(row, "would stay", below=below)


def say_kept(row: Mapping[str, Any], verb: str, *, below: str = "") -> None:
    """Say how much is not in the restore point and is left, and why the first of it is."""
    kept = row.get("kept") or 0
    if kept:
        first = (row.get("kept_paths") or [{}])[0]
        note(
            f"{row['machine']}: also not in the restore point, and {verb}: {kept}, such as "
            f"{below}{first.get('path')}: {first.get('reason')}"
        )


def say_left_out(row: Mapping[str, Any], *, below: str = "") -> None:
    """Name the first few things that are missing, each with its reason.

    `below` is the directory that the paths begin in, where that is not the root.
    """
    listed = {name: row[name] for name in LEFT_OUT if isinstance(row.get(name), list)}
    for left in [one for part in listed.values() for one in part][:SHOWN]:
        note(f"{row['machine']}: {below}{left.get('path')}: {left.get('reason')}")
    counts = [(row.get(LEFT_OUT[name]), len(part)) for name, part in listed.items()]
    more = sum(said if isinstance(said, int) else known for said, known in counts) - SHOWN
    if more > 0:
        note(f"{row['machine']}: and {more} more; --output json names up to 200 of each kind")


def say_not_backed_up(skipped: Sequence[Skipped], wanted: Sequence[bytes]) -> None:
    """Say what a restore point lacks of some paths since the backup could not read it.

    Nothing of that is wrong with a restore, and who restores will look for it all the same.
    """
    missed = [one for one in skipped if any(_is_below(one.path, path) for path in wanted)]
    if missed:
        first = missed[0]
        note(
            f"not in this restore point, since the backup left them out: {len(missed)}, such as "
            f"/{text_of(first.path.strip(b'/'))}: {first.reason}"
        )


def _is_below(path: bytes, directory: bytes) -> bool:
    path = path.strip(b"/")
    return not directory or path == directory or path.startswith(directory + b"/")


def _size(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else render_bytes(row[name])


SIZES: Mapping[str, Callable[[Row], str]] = {
    name: _size(name) for name in ("bytes", "new_bytes", "sent_bytes")
}
