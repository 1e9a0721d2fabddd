"""The times and attributes of a file as Windows gives and takes them (`FILE_BASIC_INFO`)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from agent.metadata.windows.fields import Fields
from protocol.errors import InvalidError

_LAYOUT: Final = struct.Struct("<qqqqI4x")
BYTES: Final = _LAYOUT.size


class Basic(NamedTuple):
    """Times are counts of 100 ns since 1601. Zero, when it is set, leaves a thing as it is."""

    created: int = 0
    accessed: int = 0
    written: int = 0
    changed: int = 0
    attributes: int = 0


def parse(data: bytes) -> Basic:
    """What Windows has given; `InvalidError` when it is cut short.

    >>> parse(build(Basic(created=5, attributes=0x20)))
    Basic(created=5, accessed=0, written=0, changed=0, attributes=32)
    """
    return Basic(*Fields(data, "answer about times and attributes").unpack(_LAYOUT, 0))


def build(basic: Basic) -> bytes:
    """What Windows takes; `InvalidError` when a value does not fit."""
    try:
        return _LAYOUT.pack(*basic)
    except struct.error as error:
        raise InvalidError(f"Windows has no such times and attributes: {basic}") from error
