"""Decide from the table of mounts which places can be watched at all.

Pure: the text of /proc/self/mountinfo and the paths come in. Events come only for what
goes through this kernel: what another machine, another mount or a layer below changes is
never reported. So only local types count, and each file system once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from re import compile as pattern
from typing import Final

LOCAL: Final = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs"})
_OCTAL = pattern(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the table. `point` is a path without its first slash."""

    line: bytes
    device: bytes
    point: bytes
    kind: str


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What can be watched below some paths.

    `mark` changes when anything is mounted, unmounted or mounted anew in or above them.
    `apart` are places whose events cannot be relied on: they are walked every time.
    `devices` are those of the others, None when files do not say on which they are.
    """

    mark: bytes
    apart: tuple[bytes, ...]
    devices: frozenset[int] | None = frozenset()


def parse_mounts(mountinfo: bytes) -> list[Mount]:
    """The table, as it is written; lines that make no sense are left out."""
    found = []
    # At this alone: the kernel escapes blanks and ends of lines, and no other character.
    for line in mountinfo.split(b"\n"):
        head, _, tail = line.partition(b" - ")
        fields, kinds = head.split(b" "), tail.split(b" ")
        if len(fields) >= 6 and kinds[0]:
            point = _OCTAL.sub(lambda one: bytes([int(one[1], 8)]), fields[4])
            kind = kinds[0].decode(errors="replace")
            found.append(Mount(line, fields[2], point.strip(b"/"), kind))
    return found


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether a path is a directory or lies inside it; both without a first slash.

    >>> is_below(b"etc/ssh", b"etc"), is_below(b"etc2", b"etc"), is_below(b"etc", b"")
    (True, False, True)
    """
    return not directory or path == directory or path.startswith(directory + b"/")


def plan_mounts(
    mounts: Sequence[Mount],
    paths: Sequence[bytes],
    pseudo: frozenset[str],
    off: frozenset[bytes] = frozenset(),
) -> MountPlan:
    """What can be watched below `paths`; `pseudo` types are never visited at all.

    `off` are mount points where watching was switched off.
    """
    used: list[Mount] = []
    apart: list[bytes] = []
    hidden: list[bytes] = []
    by_device: dict[bytes, Mount] = {}

    def judge(mount: Mount, place: bytes) -> None:
        if any(is_below(place, other) for other in (*apart, *hidden)):
            return
        if mount not in used:
            used.append(mount)
        if mount.kind in pseudo:
            hidden.append(place)
        elif (
            mount.kind not in LOCAL
            or mount.point in off
            # The same files at two places: events can tell only one of them.
            or by_device.setdefault(mount.device, mount) is not mount
        ):
            apart.append(place)

    for path in paths:
        holder = holder_of(path, mounts)
        if holder is not None:
            judge(holder, path)
        inner = [mount for mount in mounts if is_below(mount.point, path) and mount.point != path]
        for mount in sorted(inner, key=lambda one: one.point.split(b"/")):
            judge(mount, mount.point)
    watched = [mount for mount in used if by_device.get(mount.device) is mount]
    mark = blake2b(b"\n".join(mount.line for mount in used), digest_size=16).digest()
    devices_of = frozenset(device_number(mount.device) for mount in watched)
    hidden_numbers = any(mount.kind == "btrfs" for mount in watched)
    return MountPlan(mark, tuple(apart), None if hidden_numbers else devices_of)


def holder_of(path: bytes, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that a path lies in: the innermost, and of several there the last."""
    above = [mount for mount in mounts if is_below(path, mount.point)]
    longest = max((len(mount.point) for mount in above), default=0)
    return next((mount for mount in reversed(above) if len(mount.point) == longest), None)


def device_number(device: bytes) -> int:
    """The number of a device that is written as `major:minor`."""
    major, _, minor = device.partition(b":")
    return os.makedev(int(major), int(minor))
