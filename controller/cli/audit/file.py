"""The files of an audit export and of machines' answers: lines of JSON, one at a time.

docs/audit-format.md says what stands in them. What is not signed is there for people: a
file is believed only as far as its checkpoints bear it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from controller.audit.chain import Entry
from protocol.checkpoint import from_us, to_us
from protocol.errors import UNREADABLE, InvalidError, SteadError
from protocol.witness import SignedStatement

VERSION = 1
LONGEST_LINE = 32 * 1024 * 1024


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is in no line of this version is in no line: nothing unsigned passes for verified."""


class Header(_Line, frozen=True, tag="export"):
    """The first line. `filter` is what was asked for; None for a whole log."""

    version: int
    log: str
    name: str
    exported_at: datetime
    checkpoint: str
    filter: dict[str, str] | None = None


class EntryLine(_Line, frozen=True, tag="entry"):
    """An entry; hashes are in hex, `proof` only in a filtered file."""

    sequence: int
    at_us: int
    actor: str
    event: str
    body: str
    previous: str
    hash: str
    proof: list[str] | None = None

    def entry(self, log: str) -> Entry:
        """The entry as the chain takes it."""
        return Entry(
            tenant_id=log,
            seq=self.sequence,
            at=from_us(self.at_us),
            actor=self.actor,
            event=self.event,
            body=self.body,
            previous=_bytes(self.previous),
            hash=_bytes(self.hash),
        )

    def steps(self) -> list[bytes]:
        """The inclusion proof."""
        return [_bytes(step) for step in self.proof or ()]


class CheckpointLine(_Line, frozen=True, tag="checkpoint"):
    """A signed checkpoint, in hex."""

    signed: str

    def data(self) -> bytes:
        """Its bytes."""
        return _bytes(self.signed)


class StatementLine(_Line, frozen=True, tag="statement"):
    """What a machine answered, in a file of its own. `name` is there for people."""

    name: str
    body: bytes
    signature: bytes
    chain: list[bytes]
    proof: bytes

    def signed(self) -> SignedStatement:
        """The answer as it came."""
        return SignedStatement(self.body, self.signature, tuple(self.chain), self.proof)


class End(_Line, frozen=True, tag="end"):
    """The last line: how many entries stand before it."""

    entries: int


Line = Header | EntryLine | CheckpointLine | StatementLine | End


def line_of(entry: Entry, proof: list[bytes] | None = None) -> EntryLine:
    """An entry as a line."""
    return EntryLine(
        sequence=entry.seq,
        at_us=to_us(entry.at),
        actor=entry.actor,
        event=entry.event,
        body=entry.body,
        previous=entry.previous.hex(),
        hash=entry.hash.hex(),
        proof=None if proof is None else [step.hex() for step in proof],
    )


def write_line(file: IO[bytes], line: Line) -> None:
    """Write one line."""
    file.write(msgspec.json.encode(line) + b"\n")


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file; INVALID, with the line's number, for one that cannot be read."""
    decoder = msgspec.json.Decoder(Line)
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LONGEST_LINE):
                number += 1
                try:
                    yield decoder.decode(raw)
                except UNREADABLE as error:
                    raise InvalidError(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise SteadError(f"{path} cannot be read: {error.strerror}") from error


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidError(f"{text[:40]!r} is not hex") from None
