"""Lay small files end to end, cut the stream, and tell where each file came to lie."""

from __future__ import annotations

from collections import deque

from agent.backup.sealing import Sealing, Ticket
from protocol.vault.chunk import Buffer
from protocol.vault.cut import SMALL, Cutter
from protocol.vault.entry import Extent

BLOCK_BYTES = 8 * 1024 * 1024


class SmallStream:
    """Positions in the stream count bytes from its start and only grow."""

    def __init__(self, gear_seed: int, sealing: Sealing) -> None:
        self._cutter = Cutter(gear_seed, *SMALL)
        self._sealing = sealing
        self._parts: list[Buffer] = []
        self._pending = 0
        self.end = 0
        # Chunks that files may still lie in: ticket, start, end.
        self._chunks: deque[tuple[Ticket, int, int]] = deque()
        self._cut_to = 0

    def add(self, content: bytes) -> int:
        """Append a file's content; the position where it begins."""
        start = self.end
        self._parts.append(content)
        size = len(content)
        self.end = start + size
        self._pending += size
        if self._pending >= BLOCK_BYTES:
            self._cut(final=False)
        return start

    def flush(self) -> None:
        """Cut what is left, so that everything added so far gets a place."""
        if self._pending:
            self._cut(final=True)

    def _cut(self, *, final: bool) -> None:
        buffer = b"".join(self._parts)
        view = memoryview(buffer)
        start = 0
        for end in self._cutter.cut(buffer, final=final):
            ticket = self._sealing.submit(view[start:end])
            self._chunks.append((ticket, self._cut_to + start, self._cut_to + end))
            start = end
        self._sealing.settle()
        self._cut_to += start
        self._parts = [view[start:]] if start < len(buffer) else []
        self._pending = len(buffer) - start

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
