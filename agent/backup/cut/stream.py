"""Lay small files end to end, cut the stream, and tell where each file came to lie."""

from __future__ import annotations

from collections import deque

from agent.backup.cut.sealers import BLOCK_BYTES
from agent.backup.cut.sealing import Block, Sealing, Ticket
from protocol.vault.cut import Cutter
from protocol.vault.entry import Extent
from protocol.vault.sizes import SMALL, SMALL_FILE_BYTES

_ENOUGH = BLOCK_BYTES - SMALL_FILE_BYTES
"""With so much in a block there may be no room for another file."""


class SmallStream:
    """Positions in the stream count bytes from its start and only grow."""

    def __init__(self, gear_seed: int, sealing: Sealing) -> None:
        self._cutter = Cutter(gear_seed, *SMALL)
        self._sealing = sealing
        self._block: Block | None = None
        self._pending = 0
        self.end = 0
        # Chunks that files may still lie in: ticket, start, end.
        self._chunks: deque[tuple[Ticket, int, int]] = deque()
        self._cut_to = 0

    def room(self) -> memoryview:
        """Where the content of the next file belongs: `SMALL_FILE_BYTES` or more."""
        block = self._block
        if block is None:
            block = self._block = self._sealing.block()
        return block.view[self._pending :]

    def add(self, size: int) -> int:
        """Append what was put at the beginning of `room`; the position where it begins.

        Nobody may look at it there any more.
        """
        start = self.end
        self.end = start + size
        self._pending += size
        if self._pending > _ENOUGH:
            self._cut(final=False)
        return start

    def flush(self) -> None:
        """Cut what is left, so that everything added so far gets a place."""
        if self._pending:
            self._cut(final=True)

    def _cut(self, *, final: bool) -> None:
        block = self._block
        assert block is not None
        view = block.view[: self._pending]
        start = 0
        for end in self._cutter.cut(view, final=final):
            ticket = self._sealing.submit(block, start, end)
            self._chunks.append((ticket, self._cut_to + start, self._cut_to + end))
            start = end
        self._sealing.settle()
        self._cut_to += start
        rest = len(view) - start
        self._block = None
        if rest:
            self._block = self._sealing.block()
            self._block.view[:rest] = view[start:]
        self._pending = rest
        self._sealing.let_go(block)

    def place(self, start: int, size: int, *, wait: bool) -> tuple[Extent, ...] | None:
        """The extents of a file, or None when its chunks are not sealed yet.

        Files have to be asked for in the order in which they were added.
        """
        end = start + size
        chunks = self._chunks
        while chunks and chunks[0][2] <= start:
            chunks.popleft()
        if end > self._cut_to:
            if not wait:
                return None
            self._cut(final=True)
        extents: list[Extent] = []
        for ticket, chunk_start, chunk_end in chunks:
            if chunk_start >= end:
                break
            reference = ticket.reference
            if reference is None:
                if not wait:
                    return None
                reference = self._sealing.wait(ticket)
            low = max(start, chunk_start)
            extents.append(Extent(reference, low - chunk_start, min(end, chunk_end) - low))
        return tuple(extents)
