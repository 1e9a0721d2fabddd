"""What is shown of a job while it is watched: a line for each machine that matters now.

Pure: events and the time come in, lines go out. Those at work and those that failed come
first; what does not fit into the window is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from controller.cli.orders.outcomes import waits_for
from controller.cli.output.emit import cell_of, printable, render_bytes
from controller.cli.output.exits import OVER
from controller.cli.output.meter import render_left
from protocol.codec import to_ms
from protocol.errors import UNREADABLE
from protocol.v1.job_pb2 import Job, RolloutStatus, Task
from protocol.v1.link_pb2 import OutputStream, TaskOutput

LONGEST = 500
"""Characters of a line of output that are kept."""

NAME_SHARE = 3
"""A name takes at most a third of the width."""

_STATE, _TIME, _GAP = len("indeterminate"), len("100:00:00"), 2
_FRAME = 3
_PLACES = {
    state: place
    for place, states in enumerate(
        (
            ("running",),
            ("failed", "timed_out", "indeterminate", "rejected"),
            ("offered",),
            ("partial", "expired", "cancelled"),
            ("queued",),
            ("waiting", "awaiting"),
            ("succeeded",),
        )
    )
    for state in states
}


@dataclass(slots=True)
class Line:
    """A machine's share. `said` is the last line that it printed, or its progress."""

    name: str
    state: str = ""
    started_ms: int = 0
    ended_ms: int = 0
    said: str = ""


@dataclass(slots=True)
class Board:
    """See the module."""

    job: Job
    lines: dict[str, Line]
    rollout: RolloutStatus | None = None
    _states: Counter[str] = field(default_factory=Counter)
    """How many lines are in which state: of thousands, none is looked at for each event."""
    _cut: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job) -> Board:
        """A job as it is now."""
        rollout = job.rollout if job.HasField("rollout") else None
        board = cls(job, {}, rollout)
        for task in job.tasks:
            board.saw(task)
        return board

    def saw(self, event: Task | TaskOutput | RolloutStatus) -> None:
        """Take in what happened."""
        if isinstance(event, RolloutStatus):
            self.rollout = event
        elif isinstance(event, TaskOutput):
            if event.task_id in self.lines:
                self.lines[event.task_id].said = self._said(event) or self.lines[event.task_id].said
        else:
            line = self.lines.setdefault(event.task_id, Line(event.machine_name))
            self._states.subtract([line.state])
            self._states.update([event.state])
            line.state = event.state
            line.started_ms, line.ended_ms = event.started_at_ms, event.ended_at_ms
            if event.state in OVER and event.message:
                line.said = printable(event.message.split("\n")[0])[:LONGEST]
            elif waits := waits_for(self.job, event.state):
                line.said = printable(waits)

    @property
    def is_over(self) -> bool:
        """True when nothing is at work and nothing will be unless somebody acts."""
        states = {state for state, count in self._states.items() if count > 0}
        match self.rollout.phase if self.rollout is not None else "over":
            case "halted":
                return states <= OVER | {"waiting"}
            case phase:
                # The last outcome comes before the word that the rollout is over.
                return states <= OVER and phase == "over"

    def render(self, now: datetime, width: int, height: int) -> Table:
        """The board for a window of that many columns and lines."""
        shown, hidden = self._chosen(max(1, height - _FRAME - bool(self.rollout)))
        board = Table(box=None, pad_edge=False, show_header=False, width=width)
        board.add_column(no_wrap=True, overflow="ellipsis")
        board.add_row(Text(self.totals(), style="bold"))
        if self.rollout is not None:
            board.add_row(Text(render_rollout(self.rollout, now), style="cyan"))
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, _GAP, 0, 0))
        longest = max((len(line.name) for line in shown), default=1)
        name = min(longest, max(8, width // NAME_SHARE))
        # Every width is said: else a long line of output takes the others' room.
        said = max(1, width - name - _STATE - _TIME - 3 * _GAP)
        table.add_column(no_wrap=True, overflow="ellipsis", width=name)
        table.add_column(no_wrap=True, width=_STATE)
        table.add_column(no_wrap=True, justify="right", width=_TIME)
        table.add_column(no_wrap=True, overflow="ellipsis", width=said)
        for line in shown:
            table.add_row(
                Text(printable(line.name)),
                cell_of("state", line.state),
                render_time(line, to_ms(now)),
                Text(line.said, style="dim"),
            )
        board.add_row(table)
        if hidden:
            more = _counted(Counter(line.state for line in hidden))
            board.add_row(Text(f"and {more}", style="dim"))
        return board

    def totals(self) -> str:
        """How many are where, in one line."""
        done = sum(self._states[state] for state in OVER)
        counted = _counted(self._states)
        return f"{printable(self.job.summary)}: {done} of {len(self.lines)} done: {counted}"

    def _chosen(self, room: int) -> tuple[list[Line], list[Line]]:
        ordered = sorted(
            self.lines.values(), key=lambda line: (_PLACES.get(line.state, 0), line.name)
        )
        return ordered[:room], ordered[room:]

    def _said(self, event: TaskOutput) -> str:
        """The last line of what was printed, with what of it came before."""
        if event.stream == OutputStream.OUTPUT_STREAM_PROGRESS:
            return progress_text(event.data)
        text = self._cut.get(event.task_id, b"") + event.data
        lines = text.split(b"\n")
        self._cut[event.task_id] = lines[-1][-4 * LONGEST :]
        last = next((line for line in reversed(lines) if line.strip()), b"")
        return printable(last.decode(errors="replace").strip().replace("\t", " "))[:LONGEST]


def render_rollout(rollout: RolloutStatus, now: datetime) -> str:
    """How a rollout stands, in a line."""
    said = printable(rollout.reason) or "the rollout begins"
    if rollout.phase == "halted":
        return f"halted in batch {rollout.batch} of {rollout.batches}: {said}"
    if rollout.soaked_at_ms:
        left = render_left((rollout.soaked_at_ms - to_ms(now)) / 1000)
        return f"{said}: {left}"
    return said


def render_time(line: Line, now_ms: int) -> str:
    """How long a task took, or has taken until now.

    >>> render_time(Line("a", "running", started_ms=1000), 66_000)
    '1:05'
    """
    if not line.started_ms:
        return ""
    seconds = max(0, ((line.ended_ms or now_ms) - line.started_ms) // 1000)
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def progress_text(data: bytes) -> str:
    """What an action says of how far it is; empty when it cannot be read."""
    try:
        found = msgspec.json.decode(data)
    except UNREADABLE:
        return ""
    if not isinstance(found, dict):
        return ""
    return printable(", ".join(_progress_part(name, value) for name, value in found.items()))[:160]


def _progress_part(name: str, value: Any) -> str:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return f"{name.replace('_', ' ')} {value}"
    if name == "eta":
        return f"{value:.0f} s left"
    if name == "rate":
        return f"{render_bytes(value)}/s"
    if name.endswith("bytes"):
        return f"{name.replace('_', ' ')} {render_bytes(value)}"
    return f"{name.replace('_', ' ')} {value:,}"


def _counted(states: Counter[str]) -> str:
    ordered = sorted((+states).items(), key=lambda pair: _PLACES.get(pair[0], 0))
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in ordered)
