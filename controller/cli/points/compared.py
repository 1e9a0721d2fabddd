"""Compare restore points as people mean it: what is kept otherwise is not what is otherwise.

A file that is read again, or read on another machine, may lie in other chunks with the
very same bytes. So where two entries have one length and another place, both are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from controller.cli.points.chunks import pieces_of
from controller.cli.points.opened import Opened
from protocol.vault.diff import ALL, Change, KeyRange, diff
from protocol.vault.differences import differences
from protocol.vault.entry import Entry
from protocol.vault.reader import Wanted

Told = tuple[Change, tuple[str, ...]]


def compared(
    before: Opened,
    after: Opened,
    *,
    keys: KeyRange = ALL,
    wanted: Wanted | None = None,
    quick: bool = False,
) -> Iterator[Told]:
    """The changes with what is different; see `diff` for the arguments.

    With `quick` nothing is read: files of one length and time are believed to be equal.
    """
    changes = diff(
        before.reader, before.root, after.root, keys=keys, wanted=wanted, new_reader=after.reader
    )
    for change in changes:
        if change.old is None or change.new is None:
            yield change, ()
        elif what := what_differs(before, change.old, after, change.new, quick=quick):
            yield change, what


def what_differs(
    before: Opened, old: Entry, after: Opened, new: Entry, *, quick: bool = False
) -> tuple[str, ...]:
    """See `differences`; the content is read where its place does not tell."""

    def same_content(one: Entry, other: Entry) -> bool:
        if quick:
            return one.mtime_ns == other.mtime_ns
        left = pieces_of(before.reader, before.chunks, one)
        right = pieces_of(after.reader, after.chunks, other)
        return all(piece == opposite for piece, opposite in itertools.zip_longest(left, right))

    return differences(old, new, same_content)
