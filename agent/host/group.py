"""Control groups of version 2: where a task's family of processes can be held and ended.

Each task gets a group below the agent's own. The kernel ends all of a group at once,
wherever its processes went: other sessions, other environments, other parents. Limits for
the whole family need controllers besides, which the agent may hand down only where its
service manager has left the group to it (`Delegate=`).

Where there are none of these groups, everything here does nothing and says so.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

PREFIX = "stead."
OWN = f"{PREFIX}agent"
"""The group into which the agent steps aside, so that controllers reach its neighbours."""

CONTROLLERS = ("memory", "cpu")
_EMPTY_WITHIN_S = 0.5


def parse_own_group(groups: bytes, mounts: bytes) -> Path | None:
    """The directory of a process's group, from its `cgroup` and `mountinfo` in /proc.

    Names in them are any bytes: whoever mounts something chooses where.

    >>> parse_own_group(b"3:cpu:/\\n0::/a.service", b"30 2 0:26 / /cg rw shared:4 - cgroup2 x rw")
    PosixPath('/cg/a.service')
    """
    lines = groups.split(b"\n")
    own = next((os.fsdecode(line[3:]) for line in lines if line.startswith(b"0::/")), "")
    for line in mounts.split(b"\n"):
        front, _, back = line.partition(b" - ")
        fields = front.split(b" ")
        if not own or not back.startswith(b"cgroup2 ") or len(fields) < 5:
            continue
        root, point = os.fsdecode(fields[3]).rstrip("/"), os.fsdecode(fields[4])
        if (own == root or own.startswith(root + "/")) and "/.." not in own:
            return Path(point + own[len(root) :])
    return None


@cache
def base() -> Path | None:
    """The directory that tasks' groups are made in; None where there can be none."""
    if sys.platform != "linux":
        return None
    try:
        groups = Path("/proc/self/cgroup").read_bytes()
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    own = parse_own_group(groups, mounts)
    if own is None:
        return None
    # A worker is in its task's group, an agent perhaps in the one it stepped aside into.
    if own.name.startswith(PREFIX):
        own = own.parent
    return own if os.access(own, os.W_OK) else None


def group_of(task: str) -> Path | None:
    """Where a task's group is or would be; None where there can be none."""
    below = base()
    return None if below is None else below / f"{PREFIX}{task}"


def delegated(directory: Path) -> bool:
    """Whether the service manager has left what is below this group to us."""
    for name in ("trusted.delegate", "user.delegate"):
        with suppress(OSError):
            if sys.platform == "linux" and os.getxattr(directory, name) == b"1":
                return True
    return False


def settle_in(below: Path) -> tuple[str, ...]:
    """Hand controllers down to tasks' groups, as far as we may; returns those that they have.

    `below` is what `base` gave. A group with processes of its own hands down none, so the
    agent steps aside first. Also removes empty groups that an earlier agent left.
    """
    tidy(below)
    if delegated(below):
        with suppress(OSError):
            aside = below / OWN
            aside.mkdir(exist_ok=True)
            (aside / "cgroup.procs").write_text(str(os.getpid()))
        for name in CONTROLLERS:
            with suppress(OSError):
                (below / "cgroup.subtree_control").write_text(f"+{name}")
    try:
        handed = (below / "cgroup.subtree_control").read_text().split()
    except OSError:
        return ()
    return tuple(name for name in CONTROLLERS if name in handed)


def tidy(below: Path) -> None:
    """Remove groups that nothing is in any more."""
    for group in below.glob(f"{PREFIX}*"):
        with suppress(OSError):
            group.rmdir()


def end_group_of(task: str) -> int:
    """Kill everything in a task's group, and wait until it is gone; returns how much it was."""
    group = group_of(task)
    if group is None:
        return 0
    try:
        count = len((group / "cgroup.procs").read_text().split())
        (group / "cgroup.kill").write_text("1")
    except OSError:
        return 0  # there is no such group, or this kernel (before 5.14) cannot
    deadline = time.monotonic() + _EMPTY_WITHIN_S
    while _populated(group) and time.monotonic() < deadline:
        time.sleep(0.002)
    return count


def leave_groups() -> None:
    """Remove the groups of tasks that are over: a task's own, unless something that it left
    running is still in it, and those whose leftovers have ended since.
    """
    below = base()
    if below is not None:
        tidy(below)


def ended_for_memory(task: str) -> bool:
    """Whether the kernel ended something in a task's group because it took too much memory."""
    group = group_of(task)
    if group is None:
        return False
    try:
        events = (group / "memory.events").read_text()
    except OSError:
        return False
    return any(
        line.startswith("oom_kill ") and line != "oom_kill 0" for line in events.splitlines()
    )


def _populated(group: Path) -> bool:
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:
        return False
