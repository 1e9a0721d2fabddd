"""Count the signs of a machine that is being encrypted or emptied, while a backup reads it.

Only where there is a previous tree to compare with: a first backup pays nothing. What is
looked at of a changed file are two stretches of its content. A file looks encrypted when
one of them cannot be compressed and it does not begin as a format does that is dense by
itself: pictures, films, archives, git's packs.
"""

from __future__ import annotations

import os
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec
import zstandard

from agent.backup.select.walk import MARK_BYTES, Row
from agent.backup.tree.state import identity_of
from protocol.vault.chunk import Buffer
from protocol.vault.entry import Entry
from protocol.vault.point import Signs

Known = Mapping[tuple[bytes, bytes], tuple[Entry, bytes]]

STRETCH: Final = 1024
LEAST: Final = 512
DENSE: Final = 0.97
"""Shorter stretches tell nothing; compressed to more than this share, one is dense."""

WHOLE: Final = 256
EVERY: Final = 16
"""So many changed files are all looked at, and one of so many after that."""

ARCHIVE_BYTES: Final = 1024 * 1024
"""A new file of this size may be where others went."""

COMPRESSORS: Final = frozenset((b"gz", b"bz2", b"xz", b"lzma", b"zst", b"lz4", b"lzo", b"Z"))
"""Suffixes that rotated logs get in one night. Whoever hides behind one still looks encrypted."""

KEPT: Final = 32
_MAX_SUFFIXES: Final = 1000
_FILE: Final = 8
_MAGIC: Final = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf", b"Rar!",
    b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x78\x01",
    b"\x78\x9c", b"\x78\xda", b"RIFF", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2",
    b"fLaC", b"\x1a\x45\xdf\xa3", b"%PDF", b"PACK", b"\x7fELF", b"MSCF", b"wOF2", b"II*\0",
    b"MM\0*", b"\xff\x0a", b"hsqs", b"LUKS", b"age-encryption", b"SQLite format 3",
    b"\xd0\xcf\x11\xe0", b"\0asm", b"!<arch>", b"DIRC", b"\xfftOc",
)  # fmt: skip
_name = itemgetter(0)
_compress = zstandard.ZstdCompressor(level=1).compress


class Sample(NamedTuple):
    """The beginning of a file's content, and a stretch from its middle."""

    head: bytes
    middle: bytes


def sample_of(content: Buffer) -> Sample:
    """The sample of content that is at hand."""
    middle = len(content) // 2
    return Sample(bytes(content[:STRETCH]), bytes(content[middle : middle + STRETCH]))


def sample_at(file: int, size: int) -> Sample:
    """That of an open file of so many bytes. Raises `OSError`."""
    return Sample(os.pread(file, STRETCH, 0), os.pread(file, STRETCH, size // 2))


def looks_encrypted(sample: Sample) -> bool:
    """Whether content cannot be compressed although its format does not explain that.

    >>> import random
    >>> noise = random.Random(1).randbytes(STRETCH)
    >>> looks_encrypted(Sample(noise, b"")), looks_encrypted(Sample(b"PK\\x03\\x04" + noise, noise))
    (True, False)
    """
    head = sample.head
    if head.startswith(_MAGIC) or head[4:8] == b"ftyp" or head[257:262] == b"ustar":
        return False
    return _is_dense(head) or _is_dense(sample.middle)


def _is_dense(stretch: bytes) -> bool:
    return len(stretch) >= LEAST and len(_compress(stretch)) > len(stretch) * DENSE


class Counting:
    """The signs of one backup. `before` is how many files the previous tree has; None if unknown.

    Files that are gone are found by counting: those before and those that are new, less those
    that are there now.
    """

    def __init__(self, before: int | None = None, seed: random.Random | None = None) -> None:
        self.active = before is not None
        self.rows: Sequence[Row] = ()
        self._before = before or 0
        self._seed = seed or random.Random(0)  # noqa: S311 - chooses samples
        self._appeared = self._renamed = self._changed = 0
        self._measured = self._encrypted = self._opaque = 0
        self._suffixes: Counter[bytes] = Counter()
        self._old: list[Entry] = []
        self._inodes_of: tuple[bytes, Known] | None = None
        self._inodes: dict[bytes, bytes] = {}

    def met(self, parent: bytes, name: bytes, known: Known) -> None:
        """Another name of a file that was read under its first."""
        self._appeared += _file_of(known, parent, name) is None

    def read(self, parent: bytes, row: Row, known: Known, sample: Callable[[], Sample]) -> None:
        """A file was read because it is new or changed."""
        name, stat, line = row
        old = _file_of(known, parent, name)
        if old is None:
            self._appeared += 1
            old = self._renamed_from(parent, name, line, known)
            if old is None:
                if stat.st_size >= ARCHIVE_BYTES and looks_encrypted(sample()):
                    self._opaque += stat.st_size
                return
            self._renamed += 1
        elif old.size == stat.st_size and old.mtime_ns == stat.st_mtime_ns:
            return
        self._changed += 1
        if self._changed > WHOLE and self._changed % EVERY:
            return
        self._measured += 1
        if looks_encrypted(sample()):
            self._encrypted += 1
            self._keep(old)

    def result(
        self, files: int, was_dense: Callable[[Sequence[Entry]], float]
    ) -> Signs | msgspec.UnsetType:
        """The signs, given how many files there are now; unset where they are not known.

        `was_dense` says which share of old files could not be compressed then either.
        """
        if not self.active:
            return msgspec.UNSET
        encrypted = self._encrypted * self._changed // max(self._measured, 1)
        if self._old:
            encrypted = round(encrypted * (1 - was_dense(self._old)))
        return Signs(
            appeared=self._appeared,
            vanished=max(0, self._before + self._appeared - files),
            renamed=self._renamed,
            suffixed=max(self._suffixes.values(), default=0),
            changed=self._changed,
            encrypted=encrypted,
            opaque_bytes=self._opaque,
        )

    def _keep(self, old: Entry) -> None:
        """A fair choice of `KEPT` of those that look encrypted, as they were before."""
        if len(self._old) < KEPT:
            self._old.append(old)
        elif (place := self._seed.randrange(self._encrypted)) < KEPT:
            self._old[place] = old

    def _renamed_from(self, parent: bytes, name: bytes, line: bytes, known: Known) -> Entry | None:
        """The file of this directory that has this name now, if one has."""
        base, _, suffix = name.rpartition(b".")
        if base:
            old = _file_of(known, parent, base)
            if old is not None and not self._is_there(base):
                is_room = suffix in self._suffixes or len(self._suffixes) < _MAX_SUFFIXES
                if is_room and suffix not in COMPRESSORS:
                    self._suffixes[suffix] += 1
                return old
        of = self._inodes_of
        if of is None or of[0] != parent or of[1] is not known:
            self._inodes_of = parent, known
            self._inodes = {
                identity_of(mark): one
                for (where, one), (_, mark) in known.items()
                if where == parent
            }
        before = self._inodes.get(identity_of(line[-MARK_BYTES:]))
        if before is None or self._is_there(before):
            return None
        return _file_of(known, parent, before)

    def _is_there(self, name: bytes) -> bool:
        place = bisect_left(self.rows, name, key=_name)
        return place < len(self.rows) and self.rows[place][0] == name


def _file_of(known: Known, parent: bytes, name: bytes) -> Entry | None:
    found = known.get((parent, name))
    return found[0] if found is not None and found[0].mode >> 12 == _FILE else None
