"""Encode and decode the leaves of a tree, where the entries are.

A leaf keeps what repeats in tables: references, owners, and the directories of its
entries as runs. Rows are encoded as they come, so a leaf never exists twice in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from protocol.errors import InvalidError
from protocol.vault.chunk import REFERENCE_BYTES, ChunkId, Reference
from protocol.vault.entry import (
    MAX_INTEGER,
    Entry,
    Extent,
    Kind,
    Owner,
    Stream,
    check_entry,
    check_owner,
)
from protocol.vault.node import Index, Natural, ReferenceTable, read_references, unflatten
from protocol.vault.path import MAX_NAME_BYTES, children_prefix, is_path

LEAF: Final = 0
MAX_ENTRY_BYTES: Final = 4 * 1024 * 1024

Time = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Number32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]


class _More(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    depth: Natural
    flags: Natural
    link_group: bytes | None
    born_ns: Time | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    streams: tuple[tuple[bytes, Natural, Natural, list[Index]], ...]
    extensions: tuple[tuple[str, bytes], ...]


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    name: bytes
    mode: Annotated[int, Meta(ge=0, le=0xFFFF)]
    owner: Natural
    mtime_ns: Time
    size: Natural
    content: list[Index] | bytes | Natural | None
    more: _More | None


class _Leaf(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    type: int
    level: int
    tails: bytes
    owners: list[tuple[Number32, Number32, str, str]]
    runs: list[tuple[bytes, Natural]]
    rows: list[_Row]


_encode_into = msgspec.msgpack.Encoder().encode_into
_decode = msgspec.msgpack.Decoder(_Leaf).decode
_CHANGED = 1
_FILE = int(Kind.FILE)
_DOTS = (b".", b"..")


class LeafWriter:
    """Collects entries of one leaf in their encoded form."""

    def __init__(self) -> None:
        self.table = ReferenceTable()
        self.owners: dict[Owner, int] = {}
        self.runs: list[tuple[bytes, int]] = []
        self.rows = bytearray()
        self.entries = 0
        self.files = 0
        self.bytes = 0
        self._parent: bytes | None = None
        self._run_start = 0
        self._names = 0

    @property
    def weight(self) -> int:
        """Bytes that decide when a leaf is full: rows, references, directories."""
        return len(self.rows) + REFERENCE_BYTES * len(self.table.ids) + self._names

    def add(self, parent: bytes, entry: Entry) -> None:
        """Append an entry that `check_entry` accepts; order is the caller's affair.

        An entry that is refused with `InvalidError` leaves no trace.
        """
        marks = len(self.rows), len(self.table.ids), len(self.owners)
        try:
            self._append(entry)
        except (InvalidError, UnicodeError, OverflowError, TypeError) as error:
            del self.rows[marks[0] :]
            self.table.forget(marks[1])
            for owner in list(self.owners)[marks[2] :]:
                del self.owners[owner]
            raise InvalidError(f"{entry.name[:200]!r} cannot be kept: {error}") from error
        if parent != self._parent:
            self._end_run()
            self._parent = parent
            self._names += len(parent)
        self.entries += 1
        if entry.mode >> 12 == _FILE:
            self.files += 1
            self.bytes += entry.size

    def _append(self, entry: Entry) -> None:
        owner = self.owners.get(entry.owner)
        if owner is None:
            check_owner(entry.owner)
            owner = self.owners[entry.owner] = len(self.owners)
        mode = entry.mode
        content: list[int] | bytes | int | None
        if mode >> 12 == _FILE:
            content = entry.inline
            if content is None and entry.extents:
                content = self.table.flatten(entry.extents)
        else:
            content = entry.target or entry.rdev or None
        more = None if entry.is_plain else self._more(entry)
        row = (entry.name, mode, owner, entry.mtime_ns, entry.size, content, more)
        before = len(self.rows)
        _encode_into(row, self.rows, -1)
        if len(self.rows) - before > MAX_ENTRY_BYTES:
            raise InvalidError("it has more than 4 MiB of attributes")

    def _more(self, entry: Entry) -> tuple[object, ...]:
        streams = [
            (stream.name, stream.size, stream.depth, self.table.flatten(stream.extents))
            for stream in entry.streams
        ]
        flags = _CHANGED if entry.changed_while_read else 0
        return (
            entry.depth,
            flags,
            entry.link_group,
            entry.born_ns,
            entry.xattrs,
            streams,
            entry.extensions,
        )

    def _end_run(self) -> None:
        if self._parent is not None:
            self.runs.append((self._parent, self.entries - self._run_start))
        self._run_start = self.entries

    def finish(self) -> tuple[bytes, list[ChunkId]]:
        """The plain leaf and the children for its header."""
        self._end_run()
        plain = bytearray(b"\x96\x00\x00")
        for part in (bytes(self.table.tails), list(self.owners), self.runs):
            _encode_into(part, plain, -1)
        plain += b"\xdd" + self.entries.to_bytes(4, "big")
        plain += self.rows
        return bytes(plain), list(self.table.ids)


class Leaf(NamedTuple):
    """A decoded leaf: entries with the path of their directory, in key order."""

    entries: list[tuple[bytes, Entry]]
    first_key: bytes
    last_key: bytes


def decode_leaf(plain: bytes, children: Sequence[ChunkId]) -> Leaf:
    """Read a leaf; `InvalidError` when anything in it is out of order or out of range."""
    try:
        node = _decode(plain)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"a leaf of a tree cannot be read: {error}") from error
    if node.type != LEAF or node.level != 0:
        raise InvalidError("this node is not a leaf")
    references = read_references(node.tails, children)
    owners = [Owner(*owner) for owner in node.owners]
    entries: list[tuple[bytes, Entry]] = []
    first = last = b""
    start = 0
    for parent, count in node.runs:
        run = node.rows[start : start + count]
        if not is_path(parent) or not count or len(run) != count:
            raise InvalidError("a leaf holds an impossible directory")
        prefix = children_prefix(parent)
        key = prefix + run[0].name
        if key <= last:
            raise InvalidError("a leaf is not sorted")
        if not run[0].name and (start or parent):
            raise InvalidError("a leaf holds an entry without a name")
        previous = b""
        for row in run:
            name = row.name
            if name <= previous and row is not run[0]:
                raise InvalidError("a leaf is not sorted")
            if b"/" in name or b"\0" in name or name in _DOTS or len(name) > MAX_NAME_BYTES:
                raise InvalidError("a leaf holds a name that no directory can hold")
            previous = name
            entries.append((parent, _entry(row, owners, references)))
        first = first or key
        last = prefix + previous
        start += count
    if start != len(node.rows):
        raise InvalidError("a leaf holds entries of no directory")
    return Leaf(entries, first, last)


def _entry(row: _Row, owners: Sequence[Owner], references: Sequence[Reference]) -> Entry:
    """An entry from its row: the common kinds at once, the rare ones through every check."""
    mode, size, content = row.mode, row.size, row.content
    kind = mode >> 12
    if row.owner >= len(owners):
        raise InvalidError("an entry names an owner that is not there")
    if row.more is None:
        if kind == Kind.FILE:
            if type(content) is list and len(content) == 3:
                number, offset, length = content
                if 0 <= number < len(references) and length == size > 0 <= offset:
                    reference = references[number]
                    if offset + length <= reference.length:
                        return Entry(
                            row.name,
                            mode,
                            owners[row.owner],
                            row.mtime_ns,
                            size,
                            (Extent(reference, offset, length),),
                        )
            elif type(content) is bytes and len(content) == size:
                return Entry(row.name, mode, owners[row.owner], row.mtime_ns, size, (), content)
        elif kind == Kind.DIRECTORY and content is None and size == 0:
            return Entry(row.name, mode, owners[row.owner], row.mtime_ns)
    return _rare_entry(row, owners[row.owner], references)


def _rare_entry(row: _Row, owner: Owner, references: Sequence[Reference]) -> Entry:
    content, more, kind = row.content, row.more, row.mode >> 12
    if more is None:
        more = _PLAIN
    is_symlink = kind == Kind.SYMLINK
    is_bytes = isinstance(content, bytes)
    if more.flags > _CHANGED:
        raise InvalidError("an entry carries flags that are not known")
    entry = Entry(
        name=row.name,
        mode=row.mode,
        owner=owner,
        mtime_ns=row.mtime_ns,
        size=row.size,
        extents=unflatten(content, references) if isinstance(content, list) else (),
        inline=content if isinstance(content, bytes) and not is_symlink else None,
        target=content if isinstance(content, bytes) and is_symlink else b"",
        rdev=content if isinstance(content, int) else 0,
        depth=more.depth,
        xattrs=more.xattrs,
        link_group=more.link_group,
        changed_while_read=bool(more.flags & _CHANGED),
        born_ns=more.born_ns,
        streams=tuple(
            Stream(name, size, unflatten(flat, references), depth)
            for name, size, depth, flat in more.streams
        ),
        extensions=more.extensions,
    )
    if is_bytes and not content and is_symlink:
        raise InvalidError("a symbolic link leads nowhere")
    check_entry(entry, is_root=not row.name)
    return entry


_PLAIN = _More(0, 0, None, None, (), (), ())
