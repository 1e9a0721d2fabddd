"""Verify an export without any controller: the root's certificate is all that is believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from controller.audit.chain import EMPTY, Broken, Entry, Head, entry_hash
from controller.audit.trail import Mark, Walked, walk
from controller.cli.audit_file import CheckpointLine, End, EntryLine, Header, Line, read_lines
from protocol.checkpoint import Checkpoint, open_checkpoint
from protocol.errors import InvalidError, SteadError
from protocol.merkle import is_included


@dataclass(frozen=True, slots=True)
class Judged:
    """What an export came to. `filtered` says that entries were left out on purpose."""

    header: Header
    newest: Checkpoint
    result: Walked | Broken
    entries: int
    filtered: bool


def verify_file(path: Path, root: x509.Certificate, expected: Head | None = None) -> Judged:
    """Check a file from its first line to its last; `expected` is a head noted earlier.

    INVALID for what is no export; BAD_SIGNATURE when its newest checkpoint is not signed.
    """
    lines = read_lines(path)
    header = next(lines, None)
    if not isinstance(header, Header) or header.version != 1:
        raise InvalidError(f"{path} is not an export of `stead audit export --format json`")
    newest = open_checkpoint(CheckpointLine(header.checkpoint).data(), root)
    if newest.log != header.log:
        raise InvalidError(f"{path} says that it is of another log than its checkpoint")
    filtered = header.filter is not None
    reading = _Reading(lines, root, newest)
    try:
        if filtered:
            result = reading.chosen()
        else:
            result = walk(reading.steps(), newest.log, expected=expected)
    except SteadError as error:
        result = Broken(reading.last + 1, str(error))
    if isinstance(result, Walked) and not filtered and result.head.seq != newest.size:
        result = Broken(newest.size + 1, "the newest checkpoint does not cover it")
    return Judged(header, newest, result, reading.count, filtered)


class _Reading:
    """A file's lines after the first."""

    def __init__(self, lines: Iterator[Line], root: x509.Certificate, newest: Checkpoint) -> None:
        self._lines = lines
        self._root = root
        self._newest = newest
        self.count = 0
        self.last = 0

    def steps(self) -> Iterator[Entry | Mark]:
        """Entries and checkpoints as `walk` takes them."""
        yield Mark(self._newest, "the newest checkpoint")
        for line in self._body():
            if isinstance(line, EntryLine):
                yield line.entry(self._newest.log)
            else:
                yield Mark(open_checkpoint(line.data(), self._root), "a checkpoint")

    def chosen(self) -> Walked | Broken:
        """Check entries one by one against the newest checkpoint."""
        newest, head = self._newest, EMPTY
        for line in self._body():
            if not isinstance(line, EntryLine):
                raise InvalidError("a filtered file has one checkpoint, in its first line")
            entry = line.entry(newest.log)
            if entry.seq <= head.seq:
                return Broken(entry.seq, "it stands after a later one")
            made = entry_hash(
                entry.previous,
                entry.tenant_id,
                entry.seq,
                entry.at,
                entry.actor,
                entry.event,
                entry.body,
            )
            if made != entry.hash:
                return Broken(entry.seq, "the entry was altered")
            if not is_included(entry.hash, entry.seq - 1, newest.size, line.steps(), newest.root):
                return Broken(entry.seq, "it is not proven to be in the log that was signed")
            head = Head(entry.seq, entry.hash)
        return Walked(head, newest.size, 1)

    def _body(self) -> Iterator[EntryLine | CheckpointLine]:
        end = None
        for line in self._lines:
            if end is not None or isinstance(line, Header):
                raise InvalidError("a line stands where none should")
            if isinstance(line, End):
                end = line
                continue
            if isinstance(line, EntryLine):
                self.count += 1
                self.last = line.sequence
            yield line
        if end is None:
            raise InvalidError("the file ends before its last line: it was cut")
        if end.entries != self.count:
            raise InvalidError(f"the file has {self.count} entries and says {end.entries}")
