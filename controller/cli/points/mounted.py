"""Restore points as a file system answers for them: what is at a path, and what is in it.

Nothing is fetched before it is asked for. Nodes and chunks are kept within bounds by what
the points share (`CachedReader`, `Chunks`); only who counts the names of hard links has to
look at a whole tree, once, when the first file with several names is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from blake3 import blake3

from controller.cli.points.chunks import read_at
from controller.cli.points.opened import Opened
from protocol.errors import NotFoundError
from protocol.vault.entry import Entry, Kind, Owner
from protocol.vault.path import is_path, join

LATEST: Final = b"latest"
BLOCK: Final = 512
_ROOT: Final = Entry(b"", 0o40555, Owner(0, 0), 0)
_INO_BITS: Final = 63


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of a restore point, its path there, and the point; None for the top itself."""

    entry: Entry
    path: bytes = b""
    opened: Opened | None = None


@dataclass
class Mounted:
    """`points` are names of folders, newest first, and how to open each; one of an empty
    name is the whole of what is mounted.
    """

    points: Mapping[bytes, Callable[[], Opened]]
    _opened: dict[bytes, Opened] = field(default_factory=dict)
    _links: dict[str, Counter[bytes]] = field(default_factory=dict)
    _read_up_to: tuple[bytes, int] = (b"", 0)

    def at(self, path: bytes) -> Place:
        """What is at a relative path; NOT_FOUND when nothing is."""
        if not is_path(path):
            raise NotFoundError("no such name can be in a restore point")
        if b"" in self.points:
            return self._inside(b"", path)
        if not path:
            return Place(_ROOT)
        name, _, below = path.partition(b"/")
        if name == LATEST and not below:
            newest = next(iter(self.points))
            return Place(Entry(LATEST, 0o120777, Owner(0, 0), 0, target=newest))
        return self._inside(name, below)

    def _inside(self, name: bytes, path: bytes) -> Place:
        if name not in self.points:
            raise NotFoundError("there is no such restore point")
        opened = self._opened.get(name)
        if opened is None:
            opened = self._opened[name] = self.points[name]()
        try:
            return Place(opened.reader.get(opened.root, path), path, opened)
        except NotFoundError:
            if path:
                raise
            # A tree need not have an entry of its own for the root.
            return Place(_ROOT, b"", opened)

    def names(self, place: Place) -> Iterator[tuple[bytes, dict[str, int]]]:
        """What is in a folder: names with type and number, in order."""
        opened = place.opened
        if opened is None:
            for name in (*self.points, LATEST):
                kind = 0o120000 if name == LATEST else 0o40000
                yield name, {"st_mode": kind, "st_ino": _number(name)}
            return
        for parent, entry in opened.reader.list_directory(opened.root, place.path):
            number = self._number(Place(entry, join(parent, entry.name), opened))
            yield entry.name, {"st_mode": entry.mode, "st_ino": number}

    def attributes(self, place: Place) -> dict[str, Any]:
        """What `stat` shows; times in nanoseconds. A folder's link count is 1: unknown."""
        entry = place.entry
        size = len(entry.target) if entry.kind is Kind.SYMLINK else entry.size
        links = 1
        if entry.link_group is not None and place.opened is not None:
            links = self._counted(place.opened)[entry.link_group]
        return {
            "st_mode": entry.mode,
            "st_ino": self._number(place),
            "st_nlink": links,
            "st_uid": entry.owner.uid,
            "st_gid": entry.owner.gid,
            "st_rdev": entry.rdev,
            "st_size": size,
            "st_blksize": 1024 * 1024,
            "st_blocks": -(-self._held(place) // BLOCK),
            "st_mtime": entry.mtime_ns,
            "st_ctime": entry.mtime_ns,
            "st_atime": entry.mtime_ns,
        }

    def read(self, place: Place, size: int, offset: int) -> bytes:
        """A part of a file; who reads on where he stopped is read ahead for."""
        opened = place.opened
        if opened is None or place.entry.kind is not Kind.FILE:
            return b""
        ahead = self._read_up_to == (place.path, offset)
        data = read_at(opened.reader, opened.chunks, place.entry, offset, size, ahead=ahead)
        self._read_up_to = (place.path, offset + len(data))
        return data

    def _held(self, place: Place) -> int:
        """The bytes of a file that are no holes."""
        entry, opened = place.entry, place.opened
        if entry.inline is not None or opened is None:
            return entry.size
        extents = opened.reader.extents(entry.extents, entry.depth)
        return sum(extent.length for extent in extents if extent.reference is not None)

    def _counted(self, opened: Opened) -> Counter[bytes]:
        found = self._links.get(opened.point.id)
        if found is None:
            groups = (entry.link_group for _, entry in opened.reader.entries(opened.root))
            found = Counter(group for group in groups if group is not None)
            self._links[opened.point.id] = found
        return found

    @staticmethod
    def _number(place: Place) -> int:
        """A number that all names of one file share, and nothing else does."""
        point = place.opened.point.id.encode() if place.opened is not None else b""
        group = place.entry.link_group
        path = b"l" + group if group is not None else b"p" + place.path
        return _number(point + b"\0" + path)


def _number(name: bytes) -> int:
    return int.from_bytes(blake3(name).digest(8), "little") >> (64 - _INO_BITS) or 1


def folder_names(received: list[datetime | None]) -> list[bytes]:
    """Names of folders for restore points by their times of receipt, newest first, no name twice.

    Of one second the oldest has the plain name: names sort by age, and keep when another
    restore point comes.

    >>> folder_names([datetime(2026, 5, 1, 12, tzinfo=UTC)] * 2)
    [b'2026-05-01T12-00-00Z.2', b'2026-05-01T12-00-00Z']
    """
    seen: Counter[str] = Counter()
    names = []
    for at in reversed(received):
        name = f"{at.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}" if at is not None else "unknown"
        seen[name] += 1
        names.append(f"{name}.{seen[name]}" if seen[name] > 1 else name)
    return [name.encode() for name in reversed(names)]
