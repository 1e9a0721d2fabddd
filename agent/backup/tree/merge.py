"""Merge a walk with the previous state, a leaf at a time, in one pass.

The rows that fall into the range of an old leaf are held together. When their lines
hash to what the leaf's did, all of them are unchanged and nobody looks at them singly.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from agent.backup.select.walk import Listing, Row
from agent.backup.tree.nodes import Block, StateDamagedError
from agent.backup.tree.state import Previous, image_of
from protocol.vault.entry import Entry

_MAX_LISTINGS = 128
_MAX_ROWS = 32_768
_line = itemgetter(2)
_name = itemgetter(0)

Known = dict[tuple[bytes, bytes], tuple[Entry, bytes]]
"""What the previous state knows of entries: (directory, name) to entry and mark.

A mark that is not trusted fits no row, so that its entry is read again.
"""


class Segment(NamedTuple):
    """Rows of one directory, whose descriptor is open while this is at hand."""

    parent: bytes
    fd: int
    rows: list[Row]


class Same(NamedTuple):
    """A whole leaf of unchanged entries. `segments` are its rows."""

    block: Block
    segments: list[Segment]


class Mixed(NamedTuple):
    """Rows to look at one by one. `known` is empty for what is new."""

    segments: list[Segment]
    known: Known


def merge(
    listings: Iterable[Listing], previous: Previous, *, whole_leaves: bool = True
) -> Iterator[Same | Mixed]:
    """All rows of a walk in key order; `whole_leaves` false looks at every row singly.

    The descriptors of a piece are closed when the next piece is asked for.
    """
    held: list[Segment] = []
    rows_held = 0
    gave_up: Known | None = None
    try:
        for parent, prefix, fd, rows in listings:
            start = 0
            open_fd = fd
            while start < len(rows):
                block = previous.block
                if block is None:
                    held.append(Segment(parent, open_fd, rows[start:] if start else rows))
                    open_fd = -1
                    yield Mixed(held, gave_up or {})
                    _close(held)
                    rows_held, gave_up = 0, None
                    break
                end = _within(block.last_key, prefix, rows, start)
                ends_here = end < len(rows)
                if end > start:
                    whole = start == 0 and not ends_here
                    part = rows if whole else rows[start:end]
                    held.append(Segment(parent, os.dup(fd) if ends_here else open_fd, part))
                    rows_held += len(part)
                    if not ends_here:
                        open_fd = -1
                start = end
                if ends_here:
                    piece = _piece(held, block, previous, gave_up, whole_leaves=whole_leaves)
                    if held:
                        yield piece
                        _close(held)
                    rows_held, gave_up = 0, None
                    previous.advance()
                elif len(held) > _MAX_LISTINGS or rows_held > _MAX_ROWS:
                    gave_up = _known(block, previous) if gave_up is None else gave_up
                    yield Mixed(held, gave_up)
                    _close(held)
                    rows_held = 0
            if open_fd >= 0:
                os.close(open_fd)
        if held and previous.block is not None:
            yield _piece(held, previous.block, previous, gave_up, whole_leaves=whole_leaves)
    finally:
        _close(held)


def _within(last_key: bytes, prefix: bytes, rows: list[Row], start: int) -> int:
    """The end of the rows from `start` whose keys are not behind `last_key`."""
    if last_key.startswith(prefix):
        return bisect_right(rows, last_key[len(prefix) :], lo=start, key=_name)
    return len(rows) if prefix < last_key else start


def _piece(
    held: list[Segment],
    block: Block,
    previous: Previous,
    gave_up: Known | None,
    *,
    whole_leaves: bool,
) -> Same | Mixed:
    if gave_up is not None:
        return Mixed(held, gave_up)
    if whole_leaves and not block.linked:
        parts: list[bytes] = []
        run: bytes | None = None
        for parent, _, rows in held:
            if parent != run:
                parts.append(b"/" + parent + b"\0")
                run = parent
            parts += map(_line, rows)
        if image_of(parts) == block.image:
            return Same(block, held)
    return Mixed(held, _known(block, previous))


def _known(block: Block, previous: Previous) -> Known:
    try:
        return {
            (parent, entry.name): (entry, mark) for parent, entry, mark in previous.entries(block)
        }
    except StateDamagedError:
        previous.damaged = True
        return {}


def _close(held: list[Segment]) -> None:
    for segment in held:
        os.close(segment.fd)
    held.clear()
