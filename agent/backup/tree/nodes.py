"""Keep what is known of a tree's nodes in a file that is only ever appended to.

A block stands for a node: how it is reached, and where in the file the rest lies. That
of a leaf is its entries with their marks, that of an inner node the blocks below it. So
a new tree shares the blocks of the old one, and a run writes what it has changed.

Every block carries a checksum of what it points at, and the head that points at the top
one carries its own. What does not fit is treated as if it had never been there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import zstandard
from blake3 import blake3

from agent.backup.select.walk import MARK_BYTES
from protocol.errors import InvalidError
from protocol.vault.chunk import ID_BYTES, ChunkId
from protocol.vault.entry import Entry
from protocol.vault.leaf import decode_leaf
from protocol.vault.node import Root, decode_root

_MAX_BYTES: Final = 64 * 1024 * 1024
_BUFFER_BYTES: Final = 1024 * 1024

Known = list[tuple[bytes, Entry, bytes]]
"""Entries with what is remembered of them: directory, entry, mark."""


class StateDamagedError(InvalidError):
    """What the agent remembers is not what it wrote; it can do without."""


class Block(msgspec.Struct, array_like=True, frozen=True):
    """One node. `closed`: it ended by the rules of the tree, not because the tree did.

    `image` is a hash of the lines of a leaf's entries (see `walk.Row`), empty for an inner
    node. `linked`: there are files of several names below. `weight` is how many bytes of
    the file this and all below it take, `streamed` how many the named streams below have.
    """

    root: bytes
    last_key: bytes
    image: bytes
    linked: bool
    closed: bool
    offset: int
    length: int
    digest: bytes
    weight: int
    streamed: int

    def node(self) -> Root:
        """How the node is reached."""
        return decode_root(self.root)


_decode_blocks = msgspec.msgpack.Decoder(list[Block]).decode
_decode_leaf = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes]).decode


def digest_of(data: bytes) -> bytes:
    """The checksum of what a block points at."""
    return blake3(data).digest(16)


class NodeFile:
    """One such file. Methods that read raise `StateDamagedError` for what is damaged."""

    def __init__(self, path: Path, *, end: int = 0, new: bool = False) -> None:
        """Open it; `new` makes an empty one. Nothing behind `end` counts. Raises `OSError`."""
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if new else 0)
        self._fd = os.open(path, flags, 0o600)
        self.end = end
        self._start = self._written = end
        self._buffer = bytearray()

    def cut(self) -> None:
        """Give up what lies behind the end with which it was opened: it came to nothing."""
        os.ftruncate(self._fd, self._start)

    def append(self, data: bytes) -> int:
        """Where it lies now. Raises `OSError`; nothing can be appended after that."""
        offset = self.end
        self._buffer += data
        self.end += len(data)
        if len(self._buffer) >= _BUFFER_BYTES:
            self.flush()
        return offset

    def flush(self) -> None:
        """Write what is waiting. Raises `OSError`."""
        view = memoryview(self._buffer)
        while view:
            written = os.pwrite(self._fd, view, self._written)
            self._written += written
            view = view[written:]
        view.release()
        self._buffer = bytearray()

    def read(self, block: Block) -> bytes:
        """What a block points at."""
        if block.offset + block.length > self._written:
            self.flush()
        data = b""
        if 0 < block.length <= _MAX_BYTES and block.offset >= 0:
            data = os.pread(self._fd, block.length, block.offset)
        if digest_of(data) != block.digest:
            raise StateDamagedError(f"a block of {self.path.name} is damaged")
        return data

    def entries(self, block: Block) -> Known:
        """What is in a leaf."""
        try:
            packed = zstandard.ZstdDecompressor().decompress(
                self.read(block), max_output_size=_MAX_BYTES
            )
            marks, plain, ids = _decode_leaf(packed)
            found = decode_leaf(plain, _split(ids)).entries
        except StateDamagedError:
            raise
        except (ValueError, InvalidError, zstandard.ZstdError) as error:
            raise StateDamagedError(f"a block of the state file is damaged: {error}") from error
        if len(marks) != len(found) * MARK_BYTES:
            raise StateDamagedError("a block of the state file has other marks than entries")
        return [
            (parent, entry, marks[place * MARK_BYTES : (place + 1) * MARK_BYTES])
            for place, (parent, entry) in enumerate(found)
        ]

    def below(self, block: Block) -> list[Block]:
        """The blocks below an inner node."""
        try:
            return _decode_blocks(self.read(block))
        except ValueError as error:
            raise StateDamagedError(f"a block of the state file is damaged: {error}") from error

    def close(self) -> None:
        """Close it; what was not flushed is lost."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _split(ids: bytes) -> Sequence[ChunkId]:
    return [ChunkId(ids[start : start + ID_BYTES]) for start in range(0, len(ids), ID_BYTES)]
