"""The agent's own memory of its last restore point: which files it saw, and their nodes.

A small head says which restore point it is, and points at the top node in a file of
nodes, see `nodes`. The state is a cache: it counts only while the controller names its
point as the machine's newest, and whatever is damaged is as if it had never been there.

A mark whose mode is 0 never fits: it stands for an entry whose time stamps were too
fresh to be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import zstandard
from blake3 import blake3

from agent.backup.select.walk import MARK_BYTES
from agent.backup.skipped import Skipped, SkippedList
from agent.backup.tree.nodes import Block, Known, NodeFile, StateDamagedError, digest_of
from agent.watch.evidence import Evidence
from protocol.vault.node import Root, encode_root

_MAGIC: Final = b"StSt\x03\0\0\0"
_DIGEST_BYTES: Final = 16
_IDENTITY_BYTES: Final = 16
NO_MARK: Final = bytes(MARK_BYTES)
SLACK: Final = 3
"""A file of nodes is written anew when it is so many times what still counts in it."""
_SLACK_BYTES: Final = 16 * 1024 * 1024


class Header(msgspec.Struct, frozen=True):
    """Which restore point a state belongs to, and under which rules it was made.

    `names` is a hash of what the system knew of the names of owners.
    """

    point: str
    rules: bytes
    names: bytes


class Head(msgspec.Struct, frozen=True):
    """Everything but the nodes. `end` is the length of the file of nodes that counts.

    `directories` are those of the tree but for the root; `skipped` is what was left out,
    or None when that was too much to remember. `evidence` is what a run that goes by events
    needs.
    """

    header: Header
    file: str
    end: int
    top: Block
    directories: int
    skipped: tuple[Skipped, ...] | None
    evidence: Evidence | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Head).decode
_compressor = zstandard.ZstdCompressor(level=1)


def image_of(parts: Sequence[bytes]) -> bytes:
    """The hash of an entry list: for each run "/", directory, NUL, then its lines."""
    return blake3(b"".join(parts)).digest()


def untrusted(line: bytes) -> bytes:
    """The same line with a mark that never fits, and still says which inode it was."""
    kept = line[: _IDENTITY_BYTES - MARK_BYTES]
    return kept + NO_MARK[_IDENTITY_BYTES:]


def identity_of(mark: bytes) -> bytes:
    """Inode and device of a mark; zeros when it does not say."""
    return mark[:_IDENTITY_BYTES]


def is_trusted(mark: bytes) -> bool:
    """Whether a mark can fit at all."""
    return mark[_IDENTITY_BYTES:] != NO_MARK[_IDENTITY_BYTES:]


class StateWriter:
    """Writes a state. Use as a context; `finish` leaves a head that nobody has adopted.

    It goes on in the file of the previous state, unless there is none or too much of it
    is out of date: then everything is copied into the file `fresh`. Where it cannot be
    written, as on a full disk, it gives the room back and leaves no head: `problem` says why.
    """

    def __init__(self, head: Path, header: Header, previous: Previous, fresh: Path) -> None:
        self.problem: OSError | None = None
        self._head = head
        self._header = header
        self._previous = previous
        self._file: NodeFile | None = None
        before = previous.head
        self._copies = before is None or (before.end > SLACK * before.top.weight + _SLACK_BYTES)
        try:
            if before is None or self._copies:
                self._file = NodeFile(fresh, new=True)
            else:
                self._file = NodeFile(head.with_name(before.file), end=before.end)
            self._file.cut()
        except OSError as error:
            self._give_up(error)

    @property
    def shares(self) -> bool:
        """Whether whole subtrees of the previous state can be kept as they are."""
        return not self._copies

    def leaf(
        self,
        root: Root,
        last_key: bytes,
        parts: Sequence[bytes],
        marks: Sequence[bytes],
        plain: bytes,
        children: Sequence[bytes],
        *,
        linked: bool,
        closed: bool,
        streamed: int,
    ) -> Block:
        """The block of a leaf that was just written."""
        packed = _compressor.compress(_encode((b"".join(marks), plain, b"".join(children))))
        return self._add(packed, root, last_key, image_of(parts), linked, closed, 0, streamed)

    def branch(self, root: Root, last_key: bytes, below: Sequence[Block], *, closed: bool) -> Block:
        """The block of an inner node."""
        linked = any(block.linked for block in below)
        weight = sum(block.weight for block in below)
        streamed = sum(block.streamed for block in below)
        return self._add(_encode(below), root, last_key, b"", linked, closed, weight, streamed)

    def kept(self, block: Block) -> Block:
        """The block of a leaf, or where it `shares` of any node, of the previous state."""
        if not self._copies:
            return block
        return msgspec.structs.replace(block, offset=self._append(self._previous.read(block)))

    def _add(
        self,
        data: bytes,
        root: Root,
        last_key: bytes,
        image: bytes,
        linked: bool,
        closed: bool,
        below: int,
        streamed: int,
    ) -> Block:
        offset, size = self._append(data), len(data)
        return Block(
            encode_root(root),
            last_key,
            image,
            linked,
            closed,
            offset,
            size,
            digest_of(data),
            size + below,
            streamed,
        )

    def finish(
        self,
        top: Block,
        *,
        directories: int,
        skipped: SkippedList,
        evidence: Evidence | None = None,
    ) -> None:
        """Write the head, without which a reader trusts nothing."""
        try:
            self._write_head(top, directories, skipped, evidence)
        except OSError as error:
            self._give_up(error)

    def _write_head(
        self, top: Block, directories: int, skipped: SkippedList, evidence: Evidence | None
    ) -> None:
        if self._file is None:
            return
        self._file.flush()
        head = Head(
            self._header,
            self._file.path.name,
            self._file.end,
            top,
            directories,
            tuple(skipped.kept) if skipped.count == len(skipped.kept) else None,
            evidence,
        )
        data = _encode(head)
        self._head.write_bytes(_MAGIC + blake3(data).digest(_DIGEST_BYTES) + data)

    def _append(self, data: bytes) -> int:
        try:
            return 0 if self._file is None else self._file.append(data)
        except OSError as error:
            self._give_up(error)
            return 0

    def _give_up(self, problem: OSError) -> None:
        self.problem = problem
        if self._file is not None:
            with suppress(OSError):
                self._file.cut()
            self._file.close()
            self._file = None

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def load_head(path: Path) -> Head | None:
    """The head in a file; None when there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST_BYTES
    if data[: len(_MAGIC)] != _MAGIC:
        return None
    if blake3(data[start:]).digest(_DIGEST_BYTES) != data[len(_MAGIC) : start]:
        return None
    try:
        return _decode_head(data[start:])
    except ValueError:
        return None


class Previous:
    """Reads a state, leaf by leaf: `block` is the one at hand, None when there are no more.

    The state of `head`, whose file of nodes lies in `directory`; an empty one without.
    """

    def __init__(self, head: Head | None = None, directory: Path = Path()) -> None:
        self.head = head
        self.block: Block | None = None
        self.damaged = False
        self._file: NodeFile | None = None
        self._leaves: Iterator[Block] = iter(())
        if head is None:
            return
        try:
            self._file = NodeFile(directory / head.file, end=head.end)
        except OSError:
            self.head = None
            return
        self._leaves = self._walk([head.top])

    @property
    def header(self) -> Header | None:
        """What the state belongs to; None for an empty one."""
        return None if self.head is None else self.head.header

    @property
    def content_bytes(self) -> int:
        """How much the files of its tree have."""
        return 0 if self.head is None else self.head.top.node().bytes

    def advance(self) -> Block | None:
        """Go to the next block. Anything damaged ends the state."""
        try:
            self.block = next(self._leaves, None)
        except StateDamagedError:
            self.damaged = True
            self.block = None
            self._leaves = iter(())
        return self.block

    def read(self, block: Block) -> bytes:
        """See `NodeFile.read`."""
        return self._there().read(block)

    def entries(self, block: Block) -> Known:
        """See `NodeFile.entries`."""
        return self._there().entries(block)

    def below(self, block: Block) -> list[Block]:
        """See `NodeFile.below`."""
        return self._there().below(block)

    def close(self) -> None:
        """Give up the rest."""
        self.block = None
        self._leaves = iter(())
        if self._file is not None:
            self._file.close()
            self._file = None

    def _walk(self, blocks: Sequence[Block]) -> Iterator[Block]:
        for block in blocks:
            if block.node().level:
                yield from self._walk(self.below(block))
            else:
                yield block

    def _there(self) -> NodeFile:
        if self._file is None:
            raise StateDamagedError("the state file is closed")
        return self._file


def find_previous(path: Path, point: str, rules: bytes) -> Previous:
    """The state that belongs to this restore point and these rules, or an empty one."""
    head = load_head(path)
    if head is None or not point or (head.header.point, head.header.rules) != (point, rules):
        return Previous()
    previous = Previous(head, path.parent)
    previous.advance()
    return previous
