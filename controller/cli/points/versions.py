"""The versions of one path over many restore points: which point has which. No output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.cli.output.entries import text_of, time_of
from controller.cli.points.compared import compared, what_differs
from controller.cli.points.opened import Opened
from protocol.errors import NotFoundError
from protocol.vault.entry import Entry, Kind
from protocol.vault.path import below_range
from protocol.vault.totals import Sum


@dataclass(frozen=True, slots=True)
class Seen:
    """A restore point that was looked into, and what it has at the path or None."""

    point: str
    received_at: datetime | None
    opened: Opened
    entry: Entry | None


@dataclass(slots=True)
class Version:
    """What neighbouring restore points have in common; `seen` from the newest to the oldest."""

    newest: Seen
    oldest: Seen
    points: list[str] = field(default_factory=list)

    @property
    def entry(self) -> Entry | None:
        """What is there; None for nothing."""
        return self.newest.entry


def look(point: str, received_at: datetime | None, opened: Opened, path: bytes) -> Seen:
    """What a restore point has at a path."""
    try:
        entry = opened.reader.get(opened.root, path)
    except NotFoundError:
        entry = None
    return Seen(point, received_at, opened, entry)


def versions(path: bytes, seen: Iterable[Seen], *, every: bool = False) -> Iterator[Version]:
    """Neighbours that have the same at `path`, newest first, taken together unless `every`.

    Folders are the same when nothing below them differs, which a comparison of trees tells
    without reading what they share.
    """
    current: Version | None = None
    for one in seen:
        if current is not None and not every and _same(path, current.oldest, one):
            current.oldest = one
            current.points.append(one.point)
            continue
        if current is not None:
            yield current
        current = Version(one, one, [one.point])
    if current is not None:
        yield current


def _same(path: bytes, newer: Seen, older: Seen) -> bool:
    if newer.opened.root.reference.id == older.opened.root.reference.id:
        return True
    if newer.entry is None or older.entry is None:
        return newer.entry is older.entry
    what = what_differs(older.opened, older.entry, newer.opened, newer.entry)
    if newer.entry.kind is not Kind.DIRECTORY or what not in ((), ("time",)):
        return not what
    # A folder's time tells that names came or went, which the comparison does as well.
    return next(compared(older.opened, newer.opened, keys=below_range(path)), None) is None


def version_row(path: bytes, version: Version) -> dict[str, Any]:
    """A version as a record."""
    entry = version.entry
    total = Sum()
    if entry is not None and entry.kind is Kind.DIRECTORY:
        total = version.newest.opened.sum_below(path)
    elif entry is not None:
        total = Sum(1, int(entry.kind is Kind.FILE), entry.size)
    return {
        "point": version.newest.point,
        "received_at": version.newest.received_at,
        "since_at": version.oldest.received_at,
        "points": len(version.points),
        "point_ids": version.points,
        "kind": entry.kind.name.lower() if entry is not None else None,
        "size_bytes": total.bytes if entry is not None else None,
        "files": total.files if entry is not None else None,
        "modified_at": time_of(entry.mtime_ns) if entry is not None else None,
        "mode": f"{entry.mode & 0o7777:04o}" if entry is not None else None,
        "target": text_of(entry.target) or None if entry is not None else None,
        "state": "there" if entry is not None else "absent",
    }
