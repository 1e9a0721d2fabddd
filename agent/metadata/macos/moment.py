"""The bytes in which macOS takes and tells the time of creation. Pure.

`getattrlist` and `setattrlist` are asked for the one attribute ATTR_CMN_CRTIME. All of
this is little endian, as every Mac since 2006 is.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from protocol.errors import InvalidError

_WANTED: Final = Struct("<HHIIIII")  # struct attrlist: a count of 5 bitmaps, and the bitmaps
_TIMESPEC: Final = Struct("<qq")
_ANSWER: Final = Struct("<I")
_BITMAPS: Final = 5
_CREATION: Final = 0x200  # ATTR_CMN_CRTIME
_SECOND: Final = 1_000_000_000

ANSWER_BYTES: Final = _ANSWER.size + _TIMESPEC.size


def wanted() -> bytes:
    """The `struct attrlist` that names the time of creation and nothing else."""
    return _WANTED.pack(_BITMAPS, 0, _CREATION, 0, 0, 0, 0)


def timespec_of(born_ns: int) -> bytes:
    """What `setattrlist` takes beside it.

    >>> timespec_of(-1).hex()
    'ffffffffffffffffffc99a3b00000000'
    """
    return _TIMESPEC.pack(*divmod(born_ns, _SECOND))


def born_of(answer: bytes) -> int:
    """The time of creation in an answer of `getattrlist`; `InvalidError` for another answer."""
    if len(answer) < ANSWER_BYTES or _ANSWER.unpack_from(answer)[0] != ANSWER_BYTES:
        raise InvalidError("the system's answer about the time of creation cannot be read")
    seconds, rest = _TIMESPEC.unpack_from(answer, _ANSWER.size)
    if not 0 <= rest < _SECOND:
        raise InvalidError("the system's time of creation has no nanoseconds that can be")
    return int(seconds) * _SECOND + int(rest)
