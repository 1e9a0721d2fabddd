"""Read little-endian fields out of bytes that may be cut short or lie."""

from __future__ import annotations

import struct
from typing import Any, Final

from protocol.errors import InvalidError


class Fields:
    """A run of bytes that is never read beyond its end; `what` names it in errors."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data: Final = data
        self._what: Final = what

    def unpack(self, layout: struct.Struct, offset: int) -> tuple[Any, ...]:
        """The fields at an offset; `InvalidError` when they are not all there."""
        return layout.unpack(self.piece(offset, layout.size))

    def piece(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; `InvalidError` when they are not all there."""
        if offset < 0 or length < 0 or offset + length > len(self.data):
            raise self.wrong(f"names {length} bytes at {offset} and is {len(self.data)} bytes long")
        return self.data[offset : offset + length]

    def wrong(self, problem: str) -> InvalidError:
        """What to raise, as a whole sentence."""
        return InvalidError(f"the {self._what} {problem}")
