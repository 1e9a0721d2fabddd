"""End all that a task started, wherever it went."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from agent.host.group import end_group_of
from agent.host.process import TASK_VARIABLE

_PASSES = 10


def end_marked(task: str) -> int:
    """Kill what a task started and what still runs, wherever it went; returns how many.

    Programs that a task starts carry its id in their environment, so that an agent
    that was killed finds its children again; what they started counts too, even when
    it was given another environment. What has neither is found by the task's control
    group, where there is one. Only Linux shows any of them.
    """
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
    mark = f"{TASK_VARIABLE}={task}".encode()
    children: dict[int, list[int]] = {}
    marked = []
    for entry in Path("/proc").glob("[0-9]*"):
        number = int(entry.name)
        try:
            # "pid (any name) state parent ...", where the name may have blanks and brackets.
            state, parent, _ = (entry / "stat").read_bytes().rpartition(b") ")[2].split(b" ", 2)
            if state in b"ZX":
                continue
            children.setdefault(int(parent), []).append(number)
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                marked.append(number)
        except OSError:
            continue
    found: set[int] = set()
    while marked:
        number = marked.pop()
        if number not in found:
            found.add(number)
            marked += children.get(number, ())
    return found
