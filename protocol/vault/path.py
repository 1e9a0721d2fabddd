"""Name places in a tree, and order them so that a directory's children are neighbours.

Paths are raw bytes, relative, with "/" between components; the root is `b""`. A key is
every parent component followed by NUL, one more NUL, and the name. Since names hold
neither NUL nor "/", byte order of keys is component-wise order: first all children of
a directory, sorted, then what lies below the first of them, and so on.
"""

from __future__ import annotations

from typing import Final

from protocol.errors import InvalidError

MAX_NAME_BYTES: Final = 4096
MAX_PATH_BYTES: Final = 64 * 1024
_NO_NAMES: Final = frozenset((b"", b".", b".."))


def is_name(name: bytes) -> bool:
    """Whether this can name something inside a directory.

    >>> is_name(b"hosts"), is_name(b".."), is_name(b"a/b")
    (True, False, False)
    """
    return (
        name not in _NO_NAMES
        and b"/" not in name
        and b"\0" not in name
        and len(name) <= MAX_NAME_BYTES
    )


def is_path(path: bytes) -> bool:
    """Whether this is a path of a tree: `b""`, or names joined by "/"."""
    return not path or (len(path) <= MAX_PATH_BYTES and all(map(is_name, path.split(b"/"))))


def children_prefix(directory: bytes) -> bytes:
    """What the keys of a directory's direct children begin with; the name follows.

    >>> children_prefix(b"usr/lib")
    b'usr\\x00lib\\x00\\x00'
    """
    return directory.replace(b"/", b"\0") + b"\0\0" if directory else b"\0"


def below_prefix(directory: bytes) -> bytes:
    """What the keys of everything below a directory begin with, itself excluded."""
    return directory.replace(b"/", b"\0") + b"\0" if directory else b""


def below_range(directory: bytes) -> tuple[bytes, bytes | None]:
    """The keys of everything below a directory: from the first (included) to the other
    (excluded; `None` is the end of the tree).

    >>> below_range(b"usr"), below_range(b"")
    ((b'usr\\x00', b'usr\\x01'), (b'', None))
    """
    prefix = below_prefix(directory)
    return prefix, prefix[:-1] + b"\x01" if prefix else None


def tree_key(path: bytes) -> bytes:
    """The key of a path; `InvalidError` when it cannot be in a tree.

    >>> tree_key(b"etc/hosts"), tree_key(b"")
    (b'etc\\x00\\x00hosts', b'\\x00')
    """
    if not is_path(path):
        raise InvalidError(f"{path[:200]!r} cannot be a path of a tree")
    parent, _, name = path.rpartition(b"/")
    return children_prefix(parent) + name


def join(parent: bytes, name: bytes) -> bytes:
    """The path of a directory's child; the root's own name is empty."""
    return parent + b"/" + name if parent else name
