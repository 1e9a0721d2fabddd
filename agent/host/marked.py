"""End all that a task started, wherever it went."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from agent.host.group import end_group_of
from agent.host.process import TASK_VARIABLE

_PASSES = 10


def end_marked(task: str) -> int:
    """Kill what a task started and what still runs, wherever it went; returns how many.

    Programs that a task starts carry its id in their environment, so that an agent
    that was killed finds its children again; what they started counts too, even when
    it was given another environment. What has neither is found by the task's control
    group, where there is one (on Linux). On Windows there is nothing to find: a task's job
    has ended with the agent that held it.
    """
    if sys.platform == "win32":
        return 0
    ended: set[int] = set()
    for _ in range(_PASSES):
        # What was born while the last pass looked is found by the next.
        found = _of_task(task) - {os.getpid()}
        for number in found:
            try:
                os.kill(number, signal.SIGKILL)
            except OSError:
                continue  # it ended by itself, or it is somebody else's and so not ours
            ended.add(number)
        if not found - ended:
            break
    # Last, because a worker that ends its task is in the group itself.
    return len(ended) + end_group_of(task)


def _of_task(task: str) -> set[int]:
    """The processes with a task's mark, and their living descendants."""
    children: dict[int, list[int]] = {}
    marked = []
    for number, parent, has_mark in _processes(task):
        children.setdefault(parent, []).append(number)
        if has_mark:
            marked.append(number)
    found: set[int] = set()
    while marked:
        number = marked.pop()
        if number not in found:
            found.add(number)
            marked += children.get(number, ())
    return found


if sys.platform == "linux":

    def _processes(task: str) -> Iterator[tuple[int, int, bool]]:
        """Each living process, its parent, and whether it has the task's mark."""
        mark = f"{TASK_VARIABLE}={task}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                # "pid (any name) state parent ...", where the name may have blanks and brackets.
                stat = (entry / "stat").read_bytes().rpartition(b") ")[2]
                state, parent, _ = stat.split(b" ", 2)
            except OSError:
                continue
            if state not in b"ZX":
                yield int(entry.name), int(parent), mark in _environ(entry)

    def _environ(entry: Path) -> list[bytes]:
        """The names and values that a process was started with; none when it may not be seen."""
        try:
            return (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return []

else:
    from agent.host.by_psutil import with_mark

    def _processes(task: str) -> Iterator[tuple[int, int, bool]]:
        """Each living process, its parent, and whether it has the task's mark."""
        return with_mark(TASK_VARIABLE, task)
