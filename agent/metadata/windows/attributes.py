"""Which attributes of a Windows file are kept, and how its times are counted."""

from __future__ import annotations

from typing import Final

from protocol.errors import InvalidError
from protocol.vault.entry import MAX_INTEGER

EXTENSION: Final = "windows.attributes"

READONLY: Final = 0x1
HIDDEN: Final = 0x2
SYSTEM: Final = 0x4
DIRECTORY: Final = 0x10
ARCHIVE: Final = 0x20
REPARSE_POINT: Final = 0x400
OFFLINE: Final = 0x1000
NOT_CONTENT_INDEXED: Final = 0x2000
INTEGRITY_STREAM: Final = 0x8000
NO_SCRUB: Final = 0x20000
RECALL_ON_OPEN: Final = 0x40000
RECALL_ON_DATA_ACCESS: Final = 0x400000

SETTABLE: Final = READONLY | HIDDEN | SYSTEM | ARCHIVE | NOT_CONTENT_INDEXED
"""What a file can be given by its attributes alone."""
KEPT: Final = SETTABLE | DIRECTORY | INTEGRITY_STREAM | NO_SCRUB
"""What the extension may hold; `DIRECTORY` only of links, which Windows makes for a
directory or for a file."""
AWAY: Final = OFFLINE | RECALL_ON_OPEN | RECALL_ON_DATA_ACCESS
"""Any of these: the content is in a cloud or on a tape, and reading would fetch it."""

# What the entry tells in another way, or nothing needs to: a directory, a device, no
# attributes, temporary, sparse, a reparse point, pinned to the disk or not.
_SAID_ELSEWHERE: Final = 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | REPARSE_POINT | 0x80000 | 0x100000
_DROPPED: Final = {
    0x800: "its compression by the file system is not kept: it is restored uncompressed",
    0x4000: "its encryption by the file system is not kept: only the vault encrypts it",
}

_TICKS_TO_1970: Final = 116_444_736_000_000_000
_MAX_FILETIME: Final = MAX_INTEGER


def kept(attributes: int, *, is_link: bool = False) -> tuple[int, tuple[str, ...]]:
    """The bits to keep, and a sentence for each thing that is not.

    >>> kept(0x21)
    (33, ())
    >>> kept(0x820)
    (32, ('its compression by the file system is not kept: it is restored uncompressed',))
    """
    reasons = [reason for bit, reason in _DROPPED.items() if attributes & bit]
    if is_away(attributes):
        reasons.append("its content is not on this machine, and is not fetched for a backup")
    unknown = attributes & ~(KEPT | AWAY | _SAID_ELSEWHERE | sum(_DROPPED))
    if unknown:
        reasons.append(f"its attributes {unknown:#x} are not known and not kept")
    return attributes & (KEPT if is_link else KEPT & ~DIRECTORY), tuple(reasons)


def is_away(attributes: int) -> bool:
    """Whether reading a file would fetch it from a cloud or a tape."""
    return bool(attributes & AWAY)


def build(attributes: int) -> bytes:
    """The value of the extension: 4 bytes, little-endian; `InvalidError` beyond `KEPT`."""
    if attributes & ~KEPT:
        raise InvalidError(f"the attributes {attributes:#x} are more than a backup keeps")
    return attributes.to_bytes(4, "little")


def parse(value: bytes) -> int:
    """The attributes that an extension holds; `InvalidError` when it is none.

    >>> parse(build(HIDDEN | ARCHIVE)) == HIDDEN | ARCHIVE
    True
    """
    attributes = int.from_bytes(value, "little")
    if len(value) != 4 or attributes & ~KEPT:
        raise InvalidError(f"{value[:8].hex()!r} are no attributes that a backup keeps")
    return attributes


def to_ns(filetime: int) -> int:
    """Nanoseconds since 1970 of a count of 100 ns since 1601; `InvalidError` when it does
    not fit 64 bits, which is before 1677 and after 2262.

    >>> to_ns(116_444_736_000_000_001)
    100
    """
    ns = (filetime - _TICKS_TO_1970) * 100
    if not (0 <= filetime <= _MAX_FILETIME and abs(ns) <= MAX_INTEGER):
        raise InvalidError(f"the time {filetime:#x} of Windows does not fit 64 bits since 1970")
    return ns


def to_filetime(ns: int) -> int:
    """The 100 ns since 1601 that have passed by then; `InvalidError` where Windows has no
    such time.

    >>> to_filetime(-1)
    116444735999999999
    """
    filetime = ns // 100 + _TICKS_TO_1970
    # Zero means "leave it as it is" to Windows, and negative ones are no times.
    if not 0 < filetime <= _MAX_FILETIME:
        raise InvalidError(f"Windows has no time {ns} ns from 1970")
    return filetime


def born_ns(filetime: int) -> int | None:
    """The time of creation for an entry; `None` where the file system keeps none."""
    return to_ns(filetime) if filetime else None
