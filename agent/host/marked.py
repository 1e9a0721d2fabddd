"""End all that a task started, wherever it went."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.host.group import end_group_of
from agent.host.naming import Seen
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
        found = _of_task(task)
        found.pop(os.getpid(), None)
        # Its number may be another's since it was looked at, in a machine that is busy.
        ended |= {one.pid for one in found.values() if end(one.pid, one.began)}
        if not found.keys() - ended:
            break
    # Last, because a worker that ends its task is in the group itself.
    return len(ended) + end_group_of(task)


def _of_task(task: str) -> dict[int, Seen[Any]]:
    """The processes with a task's mark, and their living descendants, by their numbers."""
    children: dict[int, list[Seen[Any]]] = {}
    marked: list[Seen[Any]] = []
    for one in _processes(task):
        children.setdefault(one.parent, []).append(one)
        if one.has_mark:
            marked.append(one)
    found: dict[int, Seen[Any]] = {}
    while marked:
        one = marked.pop()
        if one.pid not in found:
            found[one.pid] = one
            marked += children.get(one.pid, ())
    return found


if sys.platform == "linux":
    from agent.host.by_pidfd import began, end

    def _processes(task: str) -> Iterator[Seen[int]]:
        """Each living process, and whether it has the task's mark."""
        mark = f"{TASK_VARIABLE}={task}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:
                continue
            # "pid (any name) state parent ...", where the name may have blanks and brackets.
            state, parent, _ = stat.rpartition(b") ")[2].split(b" ", 2)
            if state not in b"ZX":
                yield Seen(int(entry.name), int(parent), began(stat), mark in _environ(entry))

    def _environ(entry: Path) -> list[bytes]:
        """The names and values that a process was started with; none when it may not be seen."""
        try:
            return (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            return []

else:
    from agent.host.by_psutil import end, with_mark

    def _processes(task: str) -> Iterator[Seen[float]]:
        """Each living process, and whether it has the task's mark."""
        return with_mark(TASK_VARIABLE, task)
