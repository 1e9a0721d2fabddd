"""Times of files before 1677 and after 2262, which nanoseconds in 64 bits cannot tell.

An entry then has the nearest time that fits, and the exact one as an extension.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from protocol.vault.entry import MAX_INTEGER, Entry

NAME: Final = "posix.mtime"
_SECONDS_AND_REST = Struct("<qI")
_SECOND: Final = 1_000_000_000

Extensions = tuple[tuple[str, bytes], ...]


def near(mtime_ns: int) -> int:
    """The nearest time that fits an entry."""
    if -MAX_INTEGER <= mtime_ns <= MAX_INTEGER:
        return mtime_ns
    return MAX_INTEGER if mtime_ns > 0 else -MAX_INTEGER


def extensions_of(mtime_ns: int) -> Extensions:
    """What an entry needs beside `near`; nothing for nearly every file."""
    if -MAX_INTEGER <= mtime_ns <= MAX_INTEGER:
        return ()
    return ((NAME, _SECONDS_AND_REST.pack(*divmod(mtime_ns, _SECOND))),)


def with_time(extensions: Extensions, mtime_ns: int) -> Extensions:
    """The extensions of an entry with its exact time among them, sorted by name."""
    if -MAX_INTEGER <= mtime_ns <= MAX_INTEGER:
        return extensions
    return tuple(sorted(extensions + extensions_of(mtime_ns)))


def mtime_of(entry: Entry) -> int:
    """The exact time of an entry, in nanoseconds; a wrong extension is as good as none.

    >>> from protocol.vault.entry import Owner
    >>> far = 15_032_385_535 * _SECOND
    >>> mtime_of(Entry(b"x", 0o100644, Owner(0, 0), near(far), extensions=extensions_of(far)))
    15032385535000000000
    """
    if entry.extensions:
        value = dict(entry.extensions).get(NAME, b"")
        if len(value) == _SECONDS_AND_REST.size:
            seconds, rest = _SECONDS_AND_REST.unpack(value)
            if rest < _SECOND:
                return int(seconds) * _SECOND + int(rest)
    return entry.mtime_ns
