"""Numbers of a computer in its SMBIOS tables (DSP0134), as Windows gives them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

_HEAD = struct.Struct("<BBBBI")
"""`RawSMBIOSData`: how it was called, major, minor, revision, and the length of the tables."""
_STRUCTURE = struct.Struct("<BBH")
_SYSTEM, _BOARD = 1, 2
_SERIAL, _UUID = 7, 8


def numbers_of(raw: bytes) -> tuple[str, str, str]:
    """The system's UUID and serial, and the board's serial; empty where there is none.

    What is cut short or contradicts itself ends the tables: what was read before counts.
    """
    uuid = serial = board = ""
    for kind, formatted, strings in _structures(raw):
        if kind == _SYSTEM and not serial and not uuid:
            serial = _string(formatted, strings)
            if len(formatted) >= _UUID + 16:
                # Its first three fields are little-endian, since SMBIOS 2.6.
                uuid = str(UUID(bytes_le=formatted[_UUID : _UUID + 16]))
        elif kind == _BOARD and not board:
            board = _string(formatted, strings)
    return uuid, serial, board


def _structures(raw: bytes) -> Iterator[tuple[int, bytes, list[bytes]]]:
    if len(raw) < _HEAD.size:
        return
    *_, length = _HEAD.unpack_from(raw)
    tables = raw[_HEAD.size : _HEAD.size + length]
    at = 0
    while at + _STRUCTURE.size <= len(tables):
        kind, size, _ = _STRUCTURE.unpack_from(tables, at)
        end = tables.find(b"\0\0", at + size)
        if size < _STRUCTURE.size or end < 0:
            return
        yield kind, tables[at : at + size], tables[at + size : end].split(b"\0")
        at = end + 2


def _string(formatted: bytes, strings: list[bytes]) -> str:
    """The text that a structure names by its number, from 1."""
    number = formatted[_SERIAL] if len(formatted) > _SERIAL else 0
    if not 0 < number <= len(strings):
        return ""
    return strings[number - 1].decode("utf-8", "replace").strip()
