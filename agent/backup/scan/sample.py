"""Read a few files again that look unchanged, and compare them with what the vault holds.

This tests the change detection, the chunks and the keys at once. A mismatch means that
something changed a file without changing its time stamps, or that a chunk is damaged.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from agent.backup.cut.named_read import read_small_stream
from agent.backup.cut.read import ChangedTypeError, is_small, read_small
from agent.backup.select.walk import Row
from agent.backup.send.vault import DATA_LOSS, Vault
from agent.backup.tree.merge import Same, Segment
from agent.backup.tree.nodes import Block, Known
from agent.metadata.system import SYSTEM
from protocol.errors import SteadError
from protocol.vault.chunk import ChunkId, Opener, Reference
from protocol.vault.entry import Entry, Kind, as_file
from protocol.vault.path import join
from protocol.vault.sizes import SMALL_FILE_BYTES

SIZE = 8


class Taken(NamedTuple):
    """A file that was read again: its entry in the tree, and what is in it now.

    `beside` are its named streams, as if they were files.
    """

    path: bytes
    entry: Entry
    data: bytes
    beside: tuple[Taken, ...] = ()


def take(directory: int, path: bytes, entry: Entry, stat: os.stat_result) -> Taken | None:
    """Read a small file again; None when it is not what `stat` says any more.

    Raises `OSError` and `ChangedTypeError`: it changed a moment ago.
    """
    room = memoryview(bytearray(SMALL_FILE_BYTES))
    content = read_small(directory, entry.name, stat, room)
    if content.size < 0 or content.changed or not _same_time(content.stat, stat):
        return None
    beside = tuple(_beside(directory, path, entry, stat))
    if beside:
        after = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
        if not _same_time(after, stat):
            return None
    return Taken(path, entry, bytes(room[: content.size]), beside)


def _beside(directory: int, path: bytes, entry: Entry, stat: os.stat_result) -> Iterator[Taken]:
    # One that was removed, or made and left empty, changes no time of its file.
    known = {stream.name: stream for stream in entry.streams}
    listing = SYSTEM.streams(directory, entry.name, stat) if known else None
    for one in listing.streams if listing is not None else ():
        data = read_small_stream(directory, entry.name, one) if one.name in known else None
        if data is not None:
            yield Taken(path + b":" + one.name, as_file(known[one.name]), data)


class Sample:
    """At most `SIZE` files, each leaf that was taken over equally likely to give one."""

    def __init__(self, seed: random.Random, entries: Callable[[Block], Known]) -> None:
        self._seed = seed
        self._entries = entries
        self._taken: list[Taken] = []
        self._offered = 0

    def offer(self, piece: Same) -> None:
        """Perhaps read one of the files of this leaf."""
        self._offered += 1
        place = len(self._taken) if len(self._taken) < SIZE else self._seed.randrange(self._offered)
        if place >= SIZE:
            return
        segment = self._seed.choice(piece.segments)
        row = self._seed.choice(segment.rows)
        taken = self._read(piece, segment, row)
        if taken is not None:
            self._taken[place : place + 1] = [taken]

    def add(self, taken: Iterable[Taken]) -> None:
        """Compare these as well."""
        self._taken += taken

    def _read(self, piece: Same, segment: Segment, row: Row) -> Taken | None:
        name, stat, _ = row
        if stat.st_mode >> 12 != Kind.FILE or not is_small(stat):
            return None
        for parent, entry, _mark in self._entries(piece.block):
            if parent == segment.parent and entry.name == name:
                try:
                    return take(segment.fd, join(parent, name), entry, stat)
                except (OSError, ChangedTypeError):
                    # It changed a moment ago: the next backup will see it.
                    return None
        return None

    def mismatches(self, vault: Vault, opener: Opener) -> list[bytes]:
        """The paths whose content is not what the restore point would give back.

        A chunk that the vault has lost or finds damaged is as bad as a wrong one. Raises
        what else the vault raises.
        """
        files = [one for taken in self._taken for one in (taken, *taken.beside)]
        wanted = {
            extent.reference.id: extent.reference
            for taken in files
            for extent in taken.entry.extents
            if extent.reference is not None and not taken.entry.depth
        }
        plain = _open_all(vault, opener, wanted)
        wrong: list[bytes] = []
        for path, entry, data, _ in files:
            held = entry.inline
            if held is None:
                held = b"".join(
                    bytes(extent.length)
                    if extent.reference is None
                    else plain[extent.reference.id][extent.offset : extent.offset + extent.length]
                    for extent in entry.extents
                )
            if held != data:
                wrong.append(path)
        return wrong


def _open_all(
    vault: Vault, opener: Opener, wanted: Mapping[ChunkId, Reference]
) -> Mapping[ChunkId, bytes]:
    """The content of chunks, asked for at once; one by one when one of them is not whole."""
    if not wanted:
        return {}
    try:
        answers = zip(wanted.values(), vault.get(list(wanted)), strict=True)
        return {one.id: opener.open(stored, one) for one, stored in answers}
    except (SteadError, ValueError) as error:
        if isinstance(error, SteadError) and error.code not in DATA_LOSS:
            raise
        return {identity: _open(vault, opener, wanted[identity]) for identity in wanted}


def _open(vault: Vault, opener: Opener, reference: Reference) -> bytes:
    """The content of a chunk; nothing when there is none to be had. Raises what else is wrong."""
    try:
        (stored,) = vault.get([reference.id])
        return opener.open(stored, reference)
    except SteadError as error:
        if error.code not in DATA_LOSS:
            raise
        return b""


def _same_time(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mtime_ns, one.st_ctime_ns) == (other.st_mtime_ns, other.st_ctime_ns)
