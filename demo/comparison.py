"""Compare two directory trees by everything that a restore must bring back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PIECE_BYTES = 1024 * 1024


@dataclass
class Comparison:
    """What was looked at, and every difference in words."""

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    differences: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line."""
        found = f"{len(self.differences)} differences" if self.differences else "identical"
        return (
            f"{found}: {self.files:,} files, {self.directories:,} directories, "
            f"{self.links:,} symbolic links, {self.bytes / 1e6:,.0f} MB"
        )


def measure(path: Path) -> tuple[int, int]:
    """How many regular files a tree has and how many bytes they hold."""
    files = size = 0
    for _, status in _walk(os.fsencode(path)):
        if stat.S_ISREG(status.st_mode):
            files += 1
            size += status.st_size
    return files, size


def compare(original: Path, restored: Path) -> Comparison:
    """Compare bytes, kinds, modes, owners, times, link targets, hard links, attributes."""
    result = Comparison()
    ours, theirs = dict(_walk(os.fsencode(original))), dict(_walk(os.fsencode(restored)))
    for missing in sorted(ours.keys() - theirs.keys()):
        result.differences.append(f"{os.fsdecode(missing)}: was not restored")
    for extra in sorted(theirs.keys() - ours.keys()):
        result.differences.append(f"{os.fsdecode(extra)}: was never there")
    groups: dict[tuple[int, int], set[int]] = {}
    for path in sorted(ours.keys() & theirs.keys()):
        one, other = ours[path], theirs[path]
        for what in _differences(one, other):
            result.differences.append(f"{os.fsdecode(path)}: {what}")
        here = os.path.join(os.fsencode(original), path)  # noqa: PTH118 - raw bytes
        there = os.path.join(os.fsencode(restored), path)  # noqa: PTH118
        _content(result, one, here, there, path)
        if stat.S_ISREG(one.st_mode) and one.st_nlink > 1:
            groups.setdefault((one.st_dev, one.st_ino), set()).add(other.st_ino)
    for inodes in groups.values():
        if len(inodes) > 1:
            result.differences.append("a group of hard links came back as several files")
    return result


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b"", os.lstat(root)
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as entries:  # noqa: PTH118
            for entry in entries:
                path = os.path.join(folder, entry.name)  # noqa: PTH118
                status = entry.stat(follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)


def _differences(one: os.stat_result, other: os.stat_result) -> Iterator[str]:
    if one.st_mode != other.st_mode:
        yield f"mode {one.st_mode:o} became {other.st_mode:o}"
    if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid):
        yield f"owner {one.st_uid}:{one.st_gid} became {other.st_uid}:{other.st_gid}"
    if one.st_mtime_ns != other.st_mtime_ns:
        yield f"time {one.st_mtime_ns} became {other.st_mtime_ns}"
    if stat.S_ISREG(one.st_mode) and one.st_size != other.st_size:
        yield f"size {one.st_size} became {other.st_size}"


def _content(
    result: Comparison, status: os.stat_result, here: bytes, there: bytes, path: bytes
) -> None:
    name = os.fsdecode(path)
    if stat.S_ISLNK(status.st_mode):
        result.links += 1
        if os.readlink(here) != os.readlink(there):  # noqa: PTH115
            result.differences.append(f"{name}: the link leads elsewhere")
        return
    if stat.S_ISDIR(status.st_mode):
        result.directories += 1
    elif stat.S_ISREG(status.st_mode):
        result.files += 1
        result.bytes += status.st_size
        if not _same_bytes(here, there):
            result.differences.append(f"{name}: other bytes")
    ours, theirs = _attributes(here), _attributes(there)
    if ours != theirs:
        result.differences.append(f"{name}: attributes {ours} became {theirs}")


def _same_bytes(here: bytes, there: bytes) -> bool:
    with open(here, "rb") as one, open(there, "rb") as other:  # noqa: PTH123 - raw bytes
        while True:
            piece = one.read(PIECE_BYTES)
            if piece != other.read(PIECE_BYTES):
                return False
            if not piece:
                return True


def _attributes(path: bytes) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
