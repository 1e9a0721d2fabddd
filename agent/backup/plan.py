"""Say what a backup would take and what it would leave out, and read no file.

The very walk of a backup, under the very rules. It costs a look at each name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import Any, Final

from agent.backup.select.choose import Choice
from agent.backup.select.commands import check_commands
from agent.backup.select.places import normalise
from agent.backup.select.pseudo import read_pseudo_devices
from agent.backup.select.walk import Walk
from agent.backup.skipped import SkippedList, shown
from protocol.errors import InvalidError, NotFoundError
from protocol.selection import NO_COMMANDS, Commands, Rules
from protocol.vault.path import join

LARGEST: Final = 10
MOST_SAID: Final = (1 << 63) - 1
"""Sparse files can say to have more together than JSON takes for a number."""
_FILE: Final = 8
_DIRECTORY: Final = 4


@dataclass(slots=True)
class Amount:
    """How much of something. `size` is in bytes; each name of a file counts."""

    files: int = 0
    directories: int = 0
    others: int = 0
    size: int = 0

    def as_json(self) -> dict[str, int]:
        """For a result."""
        return {
            "files": self.files,
            "directories": self.directories,
            "others": self.others,
            "bytes": min(self.size, MOST_SAID),
        }


@dataclass(slots=True)
class BackupPlan:
    """What a backup would take, by path, with the largest files; what it would run, and what it
    would leave out.
    """

    by_path: dict[bytes, Amount]
    skipped: SkippedList
    commands: Commands = NO_COMMANDS
    left_out: list[dict[str, Any]] = field(default_factory=list)
    largest: list[tuple[int, bytes]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For a result."""
        amounts = list(self.by_path.values())
        return {
            "files": sum(one.files for one in amounts),
            "directories": sum(one.directories for one in amounts),
            "others": sum(one.others for one in amounts),
            "bytes": min(sum(one.size for one in amounts), MOST_SAID),
            "paths": [
                {"path": shown(path), **amount.as_json()} for path, amount in self.by_path.items()
            ],
            "largest": [
                {"path": shown(path), "bytes": size}
                for size, path in sorted(self.largest, reverse=True)
            ],
            "streams": [
                {"path": shown(one.path), "program": list(one.argv)}
                for one in self.commands.streams
            ],
            "before": list(self.commands.before),
            "after": list(self.commands.after),
            "left_out": self.left_out,
            "skipped": self.skipped.count,
            "skipped_paths": self.skipped.as_json()[:200],
        }


def plan_backup(
    paths: Iterable[bytes],
    rules: Rules,
    *,
    now_ns: int,
    own: frozenset[bytes] = frozenset(),
    tick: Callable[[Amount], None] = lambda _: None,
    top: bytes = b"/",
    commands: Commands = NO_COMMANDS,
) -> BackupPlan:
    """Walk `paths` as a backup would; `own` is what it leaves out of itself.

    Raises INVALID without a path or for `commands` that a backup would refuse, NOT_FOUND when
    none of the paths exists.
    """
    paths = tuple(paths)
    check_commands(commands, paths)
    wanted = normalise(paths)
    if not wanted:
        raise InvalidError("there is nothing to back up; name at least one path")
    choice = Choice(rules, now_ns=now_ns)
    plan = BackupPlan({path: Amount() for path in wanted}, SkippedList(), commands)
    walk = Walk(
        wanted, plan.skipped, own=own, pseudo=read_pseudo_devices(), start=top, choice=choice
    )
    seen = Amount()
    for parent, _, fd, rows in walk:
        os.close(fd)
        inside = _path_above(parent, wanted)
        for name, stat, _ in rows:
            path = join(parent, name) if name else b""
            at = inside if inside is not None else _path_above(path, wanted)
            if at is None:
                continue
            for amount in (plan.by_path[at], seen):
                _count(amount, stat)
            if stat.st_mode >> 12 == _FILE:
                put = heappush if len(plan.largest) < LARGEST else heappushpop
                put(plan.largest, (stat.st_size, path))
        tick(seen)
    if not walk.found_paths:
        raise NotFoundError("none of the paths to back up is there: " + plan.skipped.summary())
    plan.left_out = choice.as_json(shown)
    return plan


def _count(amount: Amount, stat: os.stat_result) -> None:
    kind = stat.st_mode >> 12
    if kind == _FILE:
        amount.files += 1
        amount.size += stat.st_size
    elif kind == _DIRECTORY:
        amount.directories += 1
    else:
        amount.others += 1


def _path_above(path: bytes, wanted: Iterable[bytes]) -> bytes | None:
    for one in wanted:
        if not one or path == one or path.startswith(one + b"/"):
            return one
    return None
