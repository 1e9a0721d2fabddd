"""What a tree knows of one thing in a file system, and which combinations make sense.

Content is a list of extents, in order and without gaps; a hole of a sparse file is an
extent without a reference. Every hard link of a group carries the content, so that any
part of a tree can be restored alone; the group is named by the path of its first link.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from protocol.errors import InvalidError
from protocol.vault.chunk import Reference
from protocol.vault.path import MAX_NAME_BYTES, MAX_PATH_BYTES, is_name

INLINE_BYTES: Final = 256
MAX_EXTENTS: Final = 2048
MAX_DEPTH: Final = 4
MAX_INTEGER: Final = (1 << 63) - 1
MAX_DEVICE: Final = MAX_INTEGER
MAX_OWNER: Final = (1 << 32) - 1
MAX_XATTR_BYTES: Final = 64 * 1024
MAX_XATTRS: Final = 1024


class Kind(IntEnum):
    """What an entry is; the values are those of `st_mode >> 12`."""

    FIFO = 1
    CHARACTER_DEVICE = 2
    DIRECTORY = 4
    BLOCK_DEVICE = 6
    FILE = 8
    SYMLINK = 10
    SOCKET = 12


class Owner(NamedTuple):
    """Who owns an entry; names are empty where the system knows none."""

    uid: int
    gid: int
    user: str = ""
    group: str = ""


class Extent(msgspec.Struct, frozen=True, gc=False):
    """`length` bytes of a file: a slice of a chunk, or a hole when `reference` is None.

    In an entry of `depth` n > 0 the reference names a tree chunk that holds a list of
    extents of depth n - 1; the slice is then that whole list and `offset` is 0.
    """

    reference: Reference | None
    offset: int
    length: int


class Stream(msgspec.Struct, frozen=True, gc=False):
    """Named content beside the main one, such as an alternate stream of NTFS."""

    name: bytes
    size: int
    extents: tuple[Extent, ...] = ()
    depth: int = 0


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One file, directory, link, pipe, device or socket.

    `mode` is the whole `st_mode`. `size` is the length of a file's content and 0 for
    everything else. `inline` is the content of a file small enough to live here,
    `target` that of a symbolic link, `rdev` the number of a device. `born_ns` is the
    time of creation where known. `extensions` are (name, value), sorted, for what other
    systems know: a reader keeps those that it does not understand.
    """

    name: bytes
    mode: int
    owner: Owner
    mtime_ns: int
    size: int = 0
    extents: tuple[Extent, ...] = ()
    inline: bytes | None = None
    target: bytes = b""
    rdev: int = 0
    depth: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    link_group: bytes | None = None
    changed_while_read: bool = False
    born_ns: int | None = None
    streams: tuple[Stream, ...] = ()
    extensions: tuple[tuple[str, bytes], ...] = ()

    @property
    def kind(self) -> Kind:
        """What this is."""
        return Kind(self.mode >> 12)

    @property
    def is_plain(self) -> bool:
        """Whether nothing rare is known of it."""
        return not (
            self.xattrs
            or self.depth
            or self.link_group is not None
            or self.changed_while_read
            or self.born_ns is not None
            or self.streams
            or self.extensions
        )


def as_file(stream: Stream, mtime_ns: int = 0) -> Entry:
    """A stream as if it were a file of its own, for whatever reads the content of files."""
    content = (stream.extents, None, b"", 0, stream.depth)
    return Entry(stream.name, Kind.FILE << 12, Owner(0, 0), mtime_ns, stream.size, *content)


# As plain numbers: every entry of every tree is compared with them.
_KINDS = frozenset(map(int, Kind))
_FILE, _SYMLINK = int(Kind.FILE), int(Kind.SYMLINK)
_DEVICES = (int(Kind.CHARACTER_DEVICE), int(Kind.BLOCK_DEVICE))


def check_entry(entry: Entry, *, is_root: bool = False) -> None:
    """Raise `InvalidError` when an entry cannot exist; the message says what is wrong."""
    problem = _problem(entry, is_root=is_root)
    if problem is not None:
        raise InvalidError(f"the entry {entry.name[:200]!r} {problem}")


def check_owner(owner: Owner) -> None:
    """Raise `InvalidError` when an owner cannot be written down."""
    if not (0 <= owner.uid <= MAX_OWNER and 0 <= owner.gid <= MAX_OWNER):
        raise InvalidError(f"the owner {owner.uid}:{owner.gid} does not fit 32 bits")
    try:
        (owner.user + owner.group).encode()
    except UnicodeEncodeError as error:
        raise InvalidError(f"the owner {owner.uid}:{owner.gid} has no name in UTF-8") from error


def _problem(entry: Entry, *, is_root: bool) -> str | None:
    mode = entry.mode
    kind = mode >> 12
    if (not is_name(entry.name)) if not is_root else entry.name:
        return "has a name that no directory can hold"
    if kind not in _KINDS or not 0 <= mode <= 0xFFFF:
        return f"has the unknown type and mode {mode:#o}"
    if not (0 <= entry.size <= MAX_INTEGER and -MAX_INTEGER <= entry.mtime_ns <= MAX_INTEGER):
        return "has a size or a time that does not fit 64 bits"
    if kind == _FILE:
        if entry.inline is not None:
            fits = not entry.extents and not entry.depth and len(entry.inline) == entry.size
            if not fits or entry.target or entry.rdev:
                return "is a file whose inline content does not fit its size"
        elif entry.target or entry.rdev:
            return "is a file with a link target or a device number"
        elif not content_fits(entry.extents, entry.depth, entry.size):
            return "is a file whose extents do not add up to its size"
    elif entry.extents or entry.inline is not None or entry.size or entry.depth:
        return "has content, and is not a file"
    elif (kind == _SYMLINK) != bool(entry.target) or len(entry.target) > MAX_PATH_BYTES:
        return "has a link target that does not fit its type"
    elif not 0 <= entry.rdev <= MAX_DEVICE or (entry.rdev and kind not in _DEVICES):
        return "has a device number that does not fit its type"
    return None if entry.is_plain else _rare_problem(entry)


def _rare_problem(entry: Entry) -> str | None:
    names = [name for name, _ in entry.xattrs]
    if names != sorted(set(names)) or len(names) > MAX_XATTRS:
        return "has extended attributes that are not sorted, or too many"
    if any(
        len(name) > MAX_NAME_BYTES or len(value) > MAX_XATTR_BYTES for name, value in entry.xattrs
    ):
        return "has an extended attribute beyond 64 KiB"
    if entry.link_group is not None and len(entry.link_group) > MAX_PATH_BYTES:
        return "has a hard link group whose name is too long"
    if entry.born_ns is not None and not -MAX_INTEGER <= entry.born_ns <= MAX_INTEGER:
        return "has a time of creation that does not fit 64 bits"
    for listed in ([stream.name for stream in entry.streams], [key for key, _ in entry.extensions]):
        if listed != sorted(set(listed)) or len(listed) > MAX_XATTRS:  # type: ignore[type-var]
            return "has streams or extensions that are not sorted, or too many"
    for stream in entry.streams:
        if stream.size > MAX_INTEGER or not content_fits(stream.extents, stream.depth, stream.size):
            return "has a stream whose extents do not add up to its size"
    return None


def content_fits(extents: Sequence[Extent], depth: int, size: int) -> bool:
    """Whether extents lie inside their chunks and add up to `size`."""
    total = 0
    if len(extents) > MAX_EXTENTS or not 0 <= depth <= MAX_DEPTH:
        return False
    for extent in extents:
        reference, offset, length = extent.reference, extent.offset, extent.length
        if length <= 0 or offset < 0:
            return False
        if reference is None or depth:
            if offset or (depth and reference is None):
                return False
        elif offset + length > reference.length:
            return False
        total += length
    return total == size
