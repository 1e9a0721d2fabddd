"""The objects of a vault as files: read with neither a database nor a controller.

Nothing is ever written, so a read-only copy or a mounted disk will do. Where a chunk lies
is kept in a small database in a temporary file, so memory does not follow the vault.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from controller.vault.keys import PackKey, PointKey, parse_key
from protocol.errors import InvalidError, NotFoundError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, chunk_id
from protocol.vault.pack import (
    MAX_PACK_BYTES,
    TRAILER_BYTES,
    Damaged,
    PackDamagedError,
    Placed,
    footer_bytes,
    read_footer,
    scan,
)
from protocol.vault.point import MAX_POINT_BYTES
from protocol.vault.reader import ChunkMissingError

_QUARANTINE = ".quarantine"
_TENANT = "tn_"
MAX_RECORD_BYTES: Final = MAX_POINT_BYTES + 64 * 1024
"""Of the record of a restore point, its certificates and signature included."""
Told = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that could not be read as it should, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Listing:
    """What lies in a directory of objects: packs and restore points with their files, and
    the links from recovery keys to those before them. `unread` could not be listed, or not
    to its end: nobody knows what else lies there.
    """

    packs: list[tuple[PackKey, Path]] = field(default_factory=list)
    points: list[tuple[PointKey, Path]] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)

    def knows_points_of(self, tenant: str, machine: str) -> bool:
        """Whether all folders that lead to a machine's restore points were listed whole."""
        way = (tenant, "points", machine)
        names = [one.name.removeprefix(_QUARANTINE).strip("/") for one in self.unread]
        return not any(way[: len(parts)] == parts for parts in map(_parts, names))


def list_objects(directory: Path) -> Listing:
    """Every pack and restore point, sorted; those that were put aside as damaged come last.

    A folder that cannot be listed costs what is in it. INVALID when the directory is not one
    of objects, NOT_FOUND when what could be listed has no restore point.
    """
    if not directory.is_dir():
        raise InvalidError(f"{directory} is not a directory; --objects names that of the vault")
    found = Listing()
    for top in (directory, directory / _QUARANTINE):
        for file in sorted(_files(top, directory, found.unread)) if top.is_dir() else ():
            key = _key_of(file.relative_to(top), put_aside=top is not directory)
            if isinstance(key, PackKey):
                found.packs.append((key, file))
            elif isinstance(key, PointKey):
                found.points.append((key, file))
            elif file.parent.name == "keys":
                found.links.append(file)
    if not found.points and found.unread:
        lost = found.unread[0]
        raise NotFoundError(
            f"no restore point can be read in {directory}: {lost.name} cannot be listed: "
            f"{lost.reason}; look for another copy of the objects"
        )
    if not found.points:
        raise InvalidError(
            f"{directory} holds no restore point: it should hold TENANT/points and TENANT/packs"
        )
    return found


def _files(top: Path, directory: Path, unread: list[Problem]) -> Iterator[Path]:
    """The files of all tenants below `top`. What else lies there is none of ours."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if folder == top and not entry.name.startswith(_TENANT):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif entry.is_file():
                        yield Path(entry.path)
        except OSError as error:
            name = folder.relative_to(directory).as_posix()
            unread.append(Problem(name, (error.strerror or str(error)).lower()))


def _parts(name: str) -> tuple[str, ...]:
    return () if name in ("", ".") else tuple(name.split("/"))


def _key_of(name: PurePath, *, put_aside: bool) -> PackKey | PointKey | None:
    """What a file holds. One that was put aside has something unique behind its key, and a file
    with the reason beside it.
    """
    if put_aside:
        if name.suffix == ".reason":
            return None
        name = name.with_name(name.name.partition(".")[0])
    return parse_key(name.as_posix())


class Objects:
    """The chunks of one tenant. Use as a context; `problems` are packs that are damaged."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._files: list[Path] = []
        # An empty name is a temporary file that goes when it is closed.
        self._places = sqlite3.connect("", check_same_thread=False)
        self._places.execute(
            "CREATE TABLE place (id BLOB, pack INTEGER, start INTEGER, length INTEGER, "
            "PRIMARY KEY (id, pack)) WITHOUT ROWID"
        )

    def __enter__(self) -> Objects:
        return self

    def __exit__(self, *_: object) -> None:
        self._places.close()

    def take_in(self, files: Sequence[Path], told: Told) -> None:
        """Read the index of every pack; of a pack without one, find the chunks themselves."""
        for number, file in enumerate(files):
            told(number, file.name[:8])
            self._files.append(file)
            try:
                placed = self._contents(file)
            except OSError as error:
                self.problems.append(Problem(file.name, (error.strerror or str(error)).lower()))
                continue
            with self._places:
                self._places.executemany(
                    "INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?)",
                    ((one.id, number, one.offset, one.length) for one in placed),
                )

    def _contents(self, file: Path) -> Iterable[Placed]:
        size = file.stat().st_size
        try:
            tail = _read(file, max(0, size - TRAILER_BYTES), TRAILER_BYTES)
            length = footer_bytes(tail)
            return read_footer(_read(file, max(0, size - length), length), size)
        except PackDamagedError as damage:
            self.problems.append(Problem(file.name, str(damage).partition(";")[0]))
            # What was appended to it by whoever saved it from a disk is not looked at.
            whole = _read(file, 0, MAX_PACK_BYTES)
            return [found for found in scan(whole) if not isinstance(found, Damaged)]

    def get(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        """Stored chunks in the order asked for, each compared with its id.

        A chunk that several packs hold is taken from one that is whole. Raises
        `ChunkMissingError` or `ChunkDamagedError` at the first that cannot be given.
        """
        for identity in ids:
            yield self._one(identity)

    def _one(self, identity: ChunkId) -> bytes:
        with closing(self._places.cursor()) as cursor:
            rows = cursor.execute(
                "SELECT pack, start, length FROM place WHERE id = ?", (identity,)
            ).fetchall()
        reason = ""
        for pack, start, length in rows:
            file = self._files[pack]
            try:
                stored = _read(file, start, length)
            except OSError as error:
                reason = f"{file.name} cannot be read: {(error.strerror or str(error)).lower()}"
                continue
            if chunk_id(stored) == identity:
                return stored
            reason = f"the pack {file.name} holds other bytes than its id says"
        if not rows:
            raise ChunkMissingError(identity)
        raise ChunkDamagedError(identity, reason)


def read_bounded(file: Path, most: int) -> bytes:
    """A whole file; INVALID where it is longer than what it stands for can be."""
    with file.open("rb") as opened:
        data = opened.read(most + 1)
    if len(data) > most:
        raise InvalidError(f"it is longer than {most:,} bytes, which none of its kind can be")
    return data


def _read(file: Path, start: int, length: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(length)
