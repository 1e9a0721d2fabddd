"""The agent's own memory of its last restore point: which files it saw, and their leaves.

One block for each leaf of the tree: how to reach the leaf, a hash of the lines of its
entries (see `walk.Row`), and, packed, those lines' marks and the leaf itself. A block
whose hash fits what the walk sees stands for all of its entries at once.

The file is a cache: each block carries a checksum, and whatever does not fit is treated
as if it had never been there. A mark of zeros never fits: it stands for an entry whose
time stamps were too fresh to be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

import msgspec
import zstandard
from blake3 import blake3

from agent.backup.walk import MARK_BYTES
from protocol.errors import InvalidError
from protocol.vault.chunk import ID_BYTES, ChunkId
from protocol.vault.entry import Entry
from protocol.vault.leaf import decode_leaf
from protocol.vault.node import Root, decode_root, encode_root

_MAGIC: Final = b"StSt\x01\0\0\0"
_FRAME = Struct("<I16s")
_MAX_BLOCK: Final = 64 * 1024 * 1024
NO_MARK: Final = bytes(MARK_BYTES)


class Header(msgspec.Struct, frozen=True):
    """Which restore point a state belongs to, and under which rules it was made.

    `names` is a hash of what the system knew of the names of owners.
    """

    point: str
    rules: bytes
    names: bytes


class Block(msgspec.Struct, array_like=True, frozen=True):
    """One leaf. `closed`: it ended by the rules of the tree, not because the tree did."""

    root: bytes
    last_key: bytes
    image: bytes
    linked: bool
    closed: bool
    packed: bytes

    def node(self) -> Root:
        """How the leaf is reached."""
        return decode_root(self.root)

    def entries(self) -> list[tuple[bytes, Entry, bytes]]:
        """What is in it: directory, entry, mark. Raises `InvalidError` when it is damaged."""
        try:
            marks, plain, ids = msgspec.msgpack.decode(
                zstandard.ZstdDecompressor().decompress(self.packed, max_output_size=_MAX_BLOCK),
                type=tuple[bytes, bytes, bytes],
            )
        except (ValueError, zstandard.ZstdError) as error:
            raise InvalidError(f"a block of the state file is damaged: {error}") from error
        children = [
            ChunkId(ids[start : start + ID_BYTES]) for start in range(0, len(ids), ID_BYTES)
        ]
        found = decode_leaf(plain, children).entries
        if len(marks) != len(found) * MARK_BYTES:
            raise InvalidError("a block of the state file has other marks than entries")
        return [
            (parent, entry, marks[place * MARK_BYTES : (place + 1) * MARK_BYTES])
            for place, (parent, entry) in enumerate(found)
        ]


_encode = msgspec.msgpack.Encoder().encode
_decode_block = msgspec.msgpack.Decoder(Block).decode
_compressor = zstandard.ZstdCompressor(level=1)


def image_of(parts: Sequence[bytes]) -> bytes:
    """The hash of an entry list: for each run "/", directory, NUL, then its lines."""
    return blake3(b"".join(parts)).digest()


def make_block(
    root: Root,
    last_key: bytes,
    parts: Sequence[bytes],
    marks: Sequence[bytes],
    plain: bytes,
    children: Sequence[bytes],
    *,
    linked: bool,
    closed: bool,
) -> Block:
    """The block of a leaf that was just written."""
    packed = _compressor.compress(_encode((b"".join(marks), plain, b"".join(children))))
    return Block(encode_root(root), last_key, image_of(parts), linked, closed, packed)


class StateWriter:
    """Writes a state file block by block. Use as a context; it does not rename anything."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb", buffering=1024 * 1024)
        self._file.write(_MAGIC)
        self._frame(_encode(header))

    def add(self, block: Block) -> None:
        """Append a block; blocks come in key order."""
        self._frame(_encode(block))

    def finish(self) -> None:
        """Write the end, without which a reader trusts nothing behind the last block."""
        self._frame(b"")
        self._file.flush()

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _frame(self, data: bytes) -> None:
        self._file.write(_FRAME.pack(len(data), blake3(data).digest(16)))
        self._file.write(data)


class Previous:
    """Reads a state file. `block` is the one at hand, None when there are no more."""

    def __init__(self, path: Path | None) -> None:
        self.header: Header | None = None
        self.block: Block | None = None
        self.damaged = False
        self._file: BinaryIO | None = None
        if path is None:
            return
        try:
            self._file = path.open("rb", buffering=1024 * 1024)
        except OSError:
            return
        if self._file.read(len(_MAGIC)) != _MAGIC:
            self.close()
            return
        data = self._next()
        try:
            self.header = msgspec.msgpack.decode(data, type=Header) if data else None
        except ValueError:
            self.header = None
        if self.header is None:
            self.close()

    def advance(self) -> Block | None:
        """Go to the next block. Anything damaged ends the file."""
        self.block = None
        data = self._next()
        if data:
            try:
                self.block = _decode_block(data)
            except ValueError:
                self.damaged = True
                self.close()
        return self.block

    def close(self) -> None:
        """Give up the rest."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next(self) -> bytes:
        if self._file is None:
            return b""
        frame = self._file.read(_FRAME.size)
        if len(frame) == _FRAME.size:
            length, digest = _FRAME.unpack(frame)
            data = self._file.read(length) if length <= _MAX_BLOCK else b""
            if len(data) == length and blake3(data).digest(16) == digest:
                return data
        self.damaged = True
        self.close()
        return b""


def find_previous(paths: Sequence[Path], point: str, rules: bytes) -> Previous:
    """The state that belongs to this restore point and these rules, or an empty one."""
    for path in paths:
        previous = Previous(path)
        header = previous.header
        if header is not None and (header.point, header.rules) == (point, rules) and point:
            previous.advance()
            return previous
        previous.close()
    return Previous(None)
