"""Verify an export without any controller: the root's certificate is all that is believed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from controller.audit.chain import EMPTY, Broken, Entry, Head, is_altered
from controller.audit.trail import Mark, Walked, walk
from controller.cli.audit.file import (
    VERSION,
    CheckpointLine,
    End,
    EntryLine,
    Header,
    Line,
    StatementLine,
    read_lines,
)
from protocol.checkpoint import Checkpoint, open_checkpoint
from protocol.errors import InvalidError, SteadError
from protocol.merkle import is_included


@dataclass(frozen=True, slots=True)
class Judged:
    """What an export came to. `filtered` says that entries were left out on purpose.

    `unmet` are expected heads about which a filtered one says nothing.
    """

    header: Header
    newest: Checkpoint
    result: Walked | Broken
    entries: int
    filtered: bool
    unmet: frozenset[Head]


def verify_file(
    path: Path,
    root: x509.Certificate,
    expected: Collection[Head] = (),
    *,
    sizes: Collection[int] = (),
) -> Judged:
    """Check a file from its first line to its last; `expected` are heads noted earlier.

    A whole one also says what the log was at `sizes`. INVALID for what is no export,
    BAD_SIGNATURE when its newest checkpoint is not signed.
    """
    lines = read_lines(path)
    header, newest = open_header(path, next(lines, None), root)
    filtered = header.filter is not None
    reading = _Reading(lines, root, newest)
    try:
        if filtered:
            result = reading.chosen(expected)
        else:
            result = walk(reading.steps(), newest.log, expected=expected, sizes=sizes)
    except SteadError as error:
        result = Broken(reading.last + 1, str(error))
    if isinstance(result, Walked) and not filtered and result.head.seq != newest.size:
        result = Broken(newest.size + 1, "the newest checkpoint does not cover it")
    unmet = frozenset(expected) - reading.met if filtered else frozenset()
    return Judged(header, newest, result, reading.count, filtered, unmet)


def open_header(path: Path, line: Line | None, root: x509.Certificate) -> tuple[Header, Checkpoint]:
    """The first line of an export, and the checkpoint in it; errors as of `verify_file`."""
    if not isinstance(line, Header) or line.version != VERSION:
        raise InvalidError(f"{path} is not an export of `stead audit export --format json`")
    try:
        newest = open_checkpoint(CheckpointLine(line.checkpoint).data(), root)
    except SteadError as error:
        raise SteadError(f"{path}: {error}", code=error.code) from error
    if newest.log != line.log:
        raise InvalidError(f"{path} says that it is of another log than its checkpoint")
    return line, newest


def first_difference(one: Path, other: Path) -> tuple[EntryLine, EntryLine] | None:
    """Where two whole exports part; None when one is how the other begins."""
    for mine, theirs in zip(_entries(one), _entries(other), strict=False):
        if mine.hash != theirs.hash:
            return mine, theirs
    return None


def _entries(path: Path) -> Iterator[EntryLine]:
    return (line for line in read_lines(path) if isinstance(line, EntryLine))


class _Reading:
    """A file's lines after the first."""

    def __init__(self, lines: Iterator[Line], root: x509.Certificate, newest: Checkpoint) -> None:
        self._lines = lines
        self._root = root
        self._newest = newest
        self.count = 0
        self.last = 0
        self.met: set[Head] = set()

    def steps(self) -> Iterator[Entry | Mark]:
        """Entries and checkpoints as `walk` takes them."""
        yield Mark(self._newest, "the newest checkpoint")
        for line in self._body():
            if isinstance(line, EntryLine):
                yield line.entry(self._newest.log)
            else:
                yield Mark(open_checkpoint(line.data(), self._root), "a checkpoint")

    def chosen(self, expected: Collection[Head]) -> Walked | Broken:
        """Check entries one by one against the newest checkpoint."""
        newest, head = self._newest, EMPTY
        awaited = {one.seq for one in expected}
        if newest.size in awaited:
            self.met.add(Head(newest.size, newest.head))
        for line in self._body():
            if not isinstance(line, EntryLine):
                raise InvalidError("a filtered file has one checkpoint, in its first line")
            entry = line.entry(newest.log)
            if entry.seq <= head.seq:
                return Broken(entry.seq, "it stands after a later one")
            if not 1 <= entry.seq <= newest.size:
                return Broken(entry.seq, "the log that was signed has no such entry")
            if is_altered(entry):
                return Broken(entry.seq, "the entry was altered")
            if not is_included(entry.hash, entry.seq - 1, newest.size, line.steps(), newest.root):
                return Broken(entry.seq, "it is not proven to be in the log that was signed")
            head = Head(entry.seq, entry.hash)
            if head.seq in awaited:
                self.met.add(head)
        met = {one.seq: one for one in self.met}
        for one in sorted(expected, key=lambda each: each.seq):
            if met.get(one.seq, one) != one:
                return Broken(one.seq, "the entry is not the one that was seen before")
        return Walked(head, newest.size, 1)

    def _body(self) -> Iterator[EntryLine | CheckpointLine]:
        end = None
        for line in self._lines:
            if end is not None or isinstance(line, Header | StatementLine):
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
