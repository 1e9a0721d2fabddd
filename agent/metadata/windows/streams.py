"""Read what Windows says of the streams of a file (`FindFirstStreamW`)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from agent.metadata.named import Listing, Named
from agent.metadata.windows import names
from agent.metadata.windows.fields import Fields
from protocol.errors import InvalidError
from protocol.vault.entry import MAX_XATTRS

FOUND_BYTES: Final = 8 + 2 * 296
"""The length of a `WIN32_FIND_STREAM_DATA`: a size, and 296 units of UTF-16."""
_SIZE = struct.Struct("<q")
_TYPE: Final = b":$DATA"
_FORBIDDEN: Final = frozenset(b":\\/\0")


def listing_of(told: Iterable[bytes]) -> Listing:
    """What all calls have found of one file: the content itself is not among it."""
    found: list[Named] = []
    left_out: list[str] = []
    for data in told:
        try:
            one = parse(data)
        except InvalidError as error:
            left_out.append(str(error))
            continue
        if not one.name:
            continue
        if len(found) < MAX_XATTRS:
            found.append(one)
        else:
            shown = one.name[:80].decode(errors="backslashreplace")
            left_out.append(f"its named stream {shown} is beyond the first {MAX_XATTRS}")
    return Listing(tuple(sorted(found)), tuple(left_out))


def parse(data: bytes) -> Named:
    """What one call has found, its name empty for the content; `InvalidError` when it is none.

    >>> parse(bytes([5]) + bytes(7) + "::$DATA".encode("utf-16-le").ljust(592, b"\\0"))
    Named(name=b'', size=5)
    """
    fields = Fields(data, "description of a stream")
    if len(data) != FOUND_BYTES:
        raise fields.wrong(f"is {len(data)} bytes long, not {FOUND_BYTES}")
    (size,) = fields.unpack(_SIZE, 0)
    if size < 0:
        raise fields.wrong(f"names the length {size}")
    units = fields.piece(_SIZE.size, FOUND_BYTES - _SIZE.size)
    end = next((at for at in range(0, len(units), 2) if units[at : at + 2] == b"\0\0"), None)
    if end is None:
        raise fields.wrong("has a name without an end")
    return Named(name_of(names.from_units(units[:end])), size)


def name_of(full: bytes) -> bytes:
    """The name between the colons; `InvalidError` for streams that are not content.

    >>> name_of(b":Zone.Identifier:$DATA"), name_of(b"::$DATA")
    (b'Zone.Identifier', b'')
    """
    if not (full.startswith(b":") and full.endswith(_TYPE) and len(full) > len(_TYPE)):
        raise InvalidError(f"{full[:64]!r} does not name a stream of content")
    name = full[1 : -len(_TYPE)]
    problem = problem_of(name) if name else None
    if problem is not None:
        raise InvalidError(f"the stream {name[:64]!r} {problem}")
    return name


def full_name(name: bytes) -> bytes:
    """What to put behind the path of a file to open a stream; `InvalidError`.

    >>> full_name(b"Zone.Identifier")
    b':Zone.Identifier:$DATA'
    """
    problem = problem_of(name)
    if problem is not None:
        raise InvalidError(f"the stream {name[:64]!r} {problem}")
    return b":" + name + _TYPE


def problem_of(name: bytes) -> str | None:
    """Why Windows cannot hold a stream of this name; `None` when it can."""
    try:
        units = names.to_units(name)
    except InvalidError:
        return "has a name that is not Unicode"
    if not name or len(units) // 2 > names.MAX_UNITS:
        return f"has a name of no or more than {names.MAX_UNITS} characters"
    if _FORBIDDEN.intersection(name):
        return "has a colon, a slash or a NUL in its name"
    return None
