"""What a system knows of one thing in a file system beside its content and its `stat`.

One shape for all systems, so that an entry carries it in the same fields whoever made it.
"""

from __future__ import annotations

from typing import NamedTuple

Xattrs = tuple[tuple[bytes, bytes], ...]
Extensions = tuple[tuple[str, bytes], ...]


class Extras(NamedTuple):
    """Ready for an entry: `xattrs` and `extensions` are sorted by name.

    `born_ns` is the time of creation in nanoseconds since 1970, where the system keeps one.
    `left_out` are reasons, a sentence each, why something of it could not be kept.
    """

    xattrs: Xattrs = ()
    extensions: Extensions = ()
    born_ns: int | None = None
    left_out: tuple[str, ...] = ()


NOTHING = Extras()
