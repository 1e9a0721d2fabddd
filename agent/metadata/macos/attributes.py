"""Which extended attributes of macOS are kept, and which are left out and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.metadata.extras import Xattrs
from protocol.vault.entry import MAX_XATTR_BYTES, MAX_XATTRS
from protocol.vault.path import MAX_NAME_BYTES

FINDER_INFO: Final = b"com.apple.FinderInfo"
RESOURCE_FORK: Final = b"com.apple.ResourceFork"
_SYSTEM: Final = b"com.apple.system."
_NEVER: Final = frozenset({b"com.apple.decmpfs", b"com.apple.rootless", b"com.apple.macl"})
"""How the file is compressed, though its content is read as it was before; and what the
system's own protections set, which nobody else may.
"""
_NO_FINDER_INFO: Final = bytes(32)


class Chosen(NamedTuple):
    """What an entry gets, sorted by name; `left_out`: a sentence for each loss."""

    xattrs: Xattrs
    left_out: tuple[str, ...] = ()


def is_kept(name: bytes) -> bool:
    """Whether an attribute of this name is looked at.

    >>> is_kept(b"com.apple.quarantine"), is_kept(b"com.apple.system.Security")
    (True, False)
    """
    return name not in _NEVER and not name.startswith(_SYSTEM)


def choose(found: Iterable[tuple[bytes, bytes]]) -> Chosen:
    """Of what a file has, what is kept: an empty Finder record is as good as none."""
    kept: list[tuple[bytes, bytes]] = []
    left_out: list[str] = []
    for name, value in sorted(found):
        if not is_kept(name) or (name == FINDER_INFO and value == _NO_FINDER_INFO):
            continue
        shown = name.decode(errors="backslashreplace")
        if len(value) > MAX_XATTR_BYTES:
            left_out.append(f"its attribute {shown} of {len(value)} bytes is larger than 64 KiB")
        elif len(name) > MAX_NAME_BYTES:
            left_out.append(f"the name of its attribute {shown[:80]} is too long")
        elif len(kept) == MAX_XATTRS:
            left_out.append(f"its attribute {shown} is beyond the first {MAX_XATTRS}")
        else:
            kept.append((name, value))
    return Chosen(tuple(kept), tuple(left_out))


def is_stream(name: bytes, size: int) -> bool:
    """Whether an attribute is kept as a named stream: a resource fork may be large.

    >>> is_stream(RESOURCE_FORK, 70_000), is_stream(RESOURCE_FORK, 286)
    (True, False)
    """
    return name == RESOURCE_FORK and size > MAX_XATTR_BYTES


def names_of(listed: bytes) -> list[bytes]:
    """The names in an answer of `listxattr`, each of which ends with a NUL.

    >>> names_of(b"com.apple.quarantine\\0user\\0")
    [b'com.apple.quarantine', b'user']
    """
    return [name for name in listed.split(b"\0") if name]
