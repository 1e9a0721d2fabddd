"""Compare directory trees in everything that a backup keeps."""

# ruff: noqa: PTH208, PTH115
from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def picture(top: Path) -> dict[bytes, Any]:
    """Everything below `top` by its relative path; hard links by the first of their names."""
    found: dict[bytes, Any] = {}
    firsts: dict[tuple[int, int], bytes] = {}
    root = os.fsencode(top)

    def visit(path: bytes, relative: bytes) -> None:
        for name in sorted(os.listdir(path)):
            full, inner = path + b"/" + name, relative + b"/" + name
            stat = os.lstat(full)
            kind = stat.st_mode >> 12
            facts: dict[str, Any] = {
                "mode": stat.st_mode,
                "owner": (stat.st_uid, stat.st_gid),
                "mtime": stat.st_mtime_ns,
            }
            if kind != 4 and stat.st_nlink > 1:
                facts["first"] = firsts.setdefault((stat.st_dev, stat.st_ino), inner)
            if kind == 8:
                facts["content"] = Path(os.fsdecode(full)).read_bytes()
                facts["holes"] = holes(full, stat.st_size)
            if kind == 10:
                facts["target"] = os.readlink(full)
            else:
                facts["xattrs"] = {key: os.getxattr(full, key) for key in os.listxattr(full)}
            if kind in (2, 6):
                facts["rdev"] = stat.st_rdev
            found[inner] = facts
            if kind == 4:
                visit(full, inner)

    visit(root, b"")
    return found


def holes(path: bytes, size: int) -> list[tuple[int, int]]:
    """Where a file has no data, as (start, end)."""
    found: list[tuple[int, int]] = []
    fd = os.open(path, os.O_RDONLY)
    try:
        place = 0
        while place < size:
            start = os.lseek(fd, place, os.SEEK_HOLE)
            if start >= size:
                break
            try:
                place = os.lseek(fd, start, os.SEEK_DATA)
            except OSError:
                place = size
            found.append((start, place))
    finally:
        os.close(fd)
    return found
