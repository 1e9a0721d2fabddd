"""The records of the journal, and how each stands in the file. Pure.

A record is a line: CRC-32 of the text in 8 hexadecimal digits, a blank, JSON.
"""

from __future__ import annotations

import zlib

import msgspec

from agent.tasks.untold import Untold
from protocol.outcome import Outcome

_CRC_DIGITS = 8


class Record(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind"):
    """One line."""


class Opened(Record, frozen=True, tag="journal"):
    """The first line."""

    revision: int = 1


class Accepted(Record, frozen=True, tag="accepted"):
    """An order will be executed. The envelope is dropped when it has been."""

    order: str
    task: str
    deliver_by_ms: int
    repeatable: bool = False
    envelope: bytes = b""
    standing: str = ""
    """The standing order of which this is a run; its envelope is where that one is kept."""
    slot_ms: int = 0
    number: int = 0
    sums_up: tuple[str, ...] = ()
    """Runs that are forgotten with this one."""
    untold: Untold | None = None


class Started(Record, frozen=True, tag="started"):
    """Execution is about to begin."""

    order: str
    at_ms: int


class Ended(Record, frozen=True, tag="ended"):
    """How it ended."""

    order: str
    outcome: Outcome


class Acknowledged(Record, frozen=True, tag="acknowledged"):
    """The controller has the outcome."""

    order: str


class Seen(Record, frozen=True, tag="seen"):
    """The latest time that was believed."""

    at_ms: int


Line = Opened | Accepted | Started | Ended | Acknowledged | Seen


def encode_line(record: Line) -> bytes:
    """A record as it stands in the file."""
    text = msgspec.json.encode(record)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode_line(line: bytes) -> Line:
    """Read a record; `ValueError` when it is damaged."""
    text = line[_CRC_DIGITS + 1 : -1]
    if line[-1:] != b"\n" or line[: _CRC_DIGITS + 1] != b"%08x " % zlib.crc32(text):
        raise ValueError("its checksum does not fit")
    return msgspec.json.decode(text, type=Line)  # type: ignore[no-any-return]


def is_cut_short(line: bytes) -> bool:
    """True for what a crash can leave at the end: a line without its end.

    A whole line whose last byte alone is wrong was written, and has been damaged since.
    """
    if line[-1:] == b"\n":
        return False
    try:
        decode_line(line[:-1] + b"\n")
    except (ValueError, msgspec.DecodeError):
        return True
    return False
