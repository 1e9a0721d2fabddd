"""Know the further names of a file that was met under its first one.

There may be as many such files as there are files: a folder of links into a store has a
name of each that a backup never meets. So memory holds some, and a file the others.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from agent.backup.beneath import stat_of
from agent.backup.far_time import mtime_of
from agent.backup.scan.assemble import Draft, extras_of
from agent.backup.scan.scratch import Identity, Scratch
from agent.backup.select.walk import MARK_BYTES, Row, line_of
from protocol.errors import SteadError
from protocol.vault.chunk import ID_BYTES, ChunkId
from protocol.vault.leaf import LeafWriter, decode_leaf

MOST: Final = 20_000
"""In memory, about 1 KiB each."""


@dataclass(slots=True)
class Group:
    """A file with several names: its first one, its mark then, and how many are to come."""

    path: bytes
    mark: bytes
    draft: Draft
    left: int


class Groups:
    """The files of which not all names were met. `close` it.

    `top` is the directory that counts as "/". Without `scratch`, which names a file, memory
    holds all of them.
    """

    def __init__(self, top: bytes = b"/", scratch: Path | None = None, *, most: int = MOST) -> None:
        self._top = top
        self._path = scratch
        self._most = most
        self._scratch: Scratch | None = None
        self._of: dict[Identity, Group] = {}

    def find(self, fd: int, row: Row) -> Group | None:
        """The group that a row of the directory `fd` is one more name of; None where there is
        none.

        The number alone does not say so: another file may have got it since, and some file
        systems give it to several. Two names of one file say the same when both are asked.
        """
        name, stat, line = row
        group = self._known((stat.st_dev, stat.st_ino))
        if group is None or group.draft.mode != stat.st_mode:
            return None
        if group.mark == line[-MARK_BYTES:]:
            return group
        try:
            first = stat_of(self._top, group.path)
            here = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None
        return group if line_of(b"", first) == line_of(b"", here) else None

    def begin(self, path: bytes, row: Row, draft: Draft) -> None:
        """A row is the first name of a file; a group of the same number ends."""
        _, stat, line = row
        group = Group(path, line[-MARK_BYTES:], draft, stat.st_nlink - 1)
        self._of[stat.st_dev, stat.st_ino] = group
        if len(self._of) > self._most and self._path is not None:
            self._put_aside(self._path)

    def met(self, group: Group, stat: os.stat_result) -> None:
        """One more name was met; with the last one the group ends."""
        group.left -= 1
        if not group.left:
            del self._of[stat.st_dev, stat.st_ino]

    def left(self, most: int) -> dict[Identity, int] | None:
        """Device and inode of those that are not complete, and how many names are missing.

        None when there are more than `most`.
        """
        aside = self._scratch
        if len(self._of) + (aside.count if aside is not None else 0) > most:
            return None
        found = {identity: group.left for identity, group in self._of.items()}
        return found if aside is None else found | dict(aside.missing())

    def close(self) -> None:
        """Forget them all."""
        self._of.clear()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def _known(self, identity: Identity) -> Group | None:
        group = self._of.get(identity)
        if group is not None or self._scratch is None:
            return group
        try:
            found = self._scratch.take(identity)
        except sqlite3.Error as error:
            raise SteadError(
                f"{self._path} cannot be read: {error}; check the disk, then back up again"
            ) from error
        if found is None:
            return None
        group = self._of[identity] = _unpacked(*found)
        return group

    def _put_aside(self, path: Path) -> None:
        """Half of those whose first name is in the tree already."""
        oldest = islice(self._of.items(), self._most // 2)
        ready = [(identity, group) for identity, group in oldest if group.draft.entry is not None]
        try:
            if self._scratch is None:
                self._scratch = Scratch(path)
            is_kept = self._scratch.put((one, group.left, _packed(group)) for one, group in ready)
        except (OSError, sqlite3.Error):
            is_kept = False
        if not is_kept:
            # A full disk: memory has to do.
            self._most *= 2
            return
        for identity, _ in ready:
            del self._of[identity]


class _Record(msgspec.Struct, array_like=True, frozen=True):
    path: bytes
    mark: bytes
    line_mark: bytes
    plain: bytes
    children: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


def _packed(group: Group) -> bytes:
    entry = group.draft.entry
    assert entry is not None
    writer = LeafWriter()
    writer.add(b"", entry)
    plain, children = writer.finish()
    mark = group.draft.line[-MARK_BYTES:]
    return _encode(_Record(group.path, group.mark, mark, plain, b"".join(children)))


def _unpacked(left: int, packed: bytes) -> Group:
    record = _decode(packed)
    ((_, entry),) = decode_leaf(record.plain, _ids(record.children)).entries
    parent, _, name = record.path.rpartition(b"/")
    draft = Draft(
        parent, name + b"\0" + record.line_mark, name, entry.mode, entry.owner, mtime_of(entry)
    )
    draft.entry, draft.extras, draft.link_group = entry, extras_of(entry), record.path
    return Group(record.path, record.mark, draft, left)


def _ids(joined: bytes) -> Sequence[ChunkId]:
    return [ChunkId(joined[at : at + ID_BYTES]) for at in range(0, len(joined), ID_BYTES)]
