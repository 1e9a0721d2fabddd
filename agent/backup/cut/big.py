"""Cut one big file on its own, keep its holes, and collect where its content came to lie."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping

from agent.backup.cut.read import data_ranges
from agent.backup.cut.sealers import BLOCK_BYTES
from agent.backup.cut.sealing import Sealing, Ticket
from protocol.vault.chunk import Reference, Sealer
from protocol.vault.content import ExtentWriter
from protocol.vault.cut import Cutter
from protocol.vault.entry import Extent

_AWAITED = 64


class BigFile:
    """A file's extents, some of them still being sealed. `size` is what was read."""

    def __init__(
        self, sealing: Sealing, sealer: Sealer, put: Callable[[Reference, bytes], None]
    ) -> None:
        self.size = 0
        self._sealing = sealing
        self._writer = ExtentWriter(sealer, put)
        self._parts: deque[tuple[Ticket | None, int]] = deque()
        self._result: tuple[tuple[Extent, ...], int] | None = None

    def read(
        self,
        fd: int,
        stat: os.stat_result,
        cutter: Cutter,
        known: Mapping[bytes, Reference],
        tick: Callable[[int], None],
    ) -> None:
        """Read and cut the whole file; `tick` is told the bytes of each step."""
        for start, end, is_data in data_ranges(fd, stat):
            if is_data:
                os.posix_fadvise(fd, start, 0, os.POSIX_FADV_SEQUENTIAL)
                self._data(fd, start, end, cutter, known, tick)
            else:
                self._parts.append((None, end - start))
                self.size += end - start
                tick(end - start)

    def _data(
        self,
        fd: int,
        start: int,
        end: int,
        cutter: Cutter,
        known: Mapping[bytes, Reference],
        tick: Callable[[int], None],
    ) -> None:
        place = start
        while end < 0 or place < end:
            wanted = BLOCK_BYTES if end < 0 else min(BLOCK_BYTES, end - place)
            block = self._sealing.block()
            try:
                got = os.preadv(fd, [block.view[:wanted]], place)
                # A short answer is not the end yet: the next read says whether it was.
                final = place + got == end or (
                    got < BLOCK_BYTES and not os.pread(fd, 1, place + got)
                )
                cut = 0
                for stop in cutter.cut(block.view[:got], final=final):
                    ticket = self._sealing.submit(block, cut, stop, known)
                    self._parts.append((ticket, stop - cut))
                    cut = stop
            finally:
                self._sealing.let_go(block)
            if not got:
                break
            place += cut
            self.size += cut
            tick(cut)
            while len(self._parts) > _AWAITED:
                self._fold(wait=True)
            if final:
                break

    def pour(
        self, fill: Callable[[memoryview], int], cutter: Cutter, tick: Callable[[int], None]
    ) -> None:
        """Cut what can be read but once; `fill` gives less than it was asked for at the end."""
        rest = b""
        final = False
        while not final:
            block = self._sealing.block()
            try:
                block.view[: len(rest)] = rest
                got = len(rest) + fill(block.view[len(rest) : BLOCK_BYTES])
                final = got < BLOCK_BYTES
                cut = 0
                for stop in cutter.cut(block.view[:got], final=final):
                    ticket = self._sealing.submit(block, cut, stop)
                    self._parts.append((ticket, stop - cut))
                    cut = stop
                rest = bytes(block.view[cut:got])
            finally:
                self._sealing.let_go(block)
            self.size += cut
            tick(cut)
            while len(self._parts) > _AWAITED:
                self._fold(wait=True)

    def _fold(self, *, wait: bool) -> bool:
        """Move the first part to the extents; False when it is not sealed yet."""
        ticket, length = self._parts[0]
        reference: Reference | None = None
        if ticket is not None:
            reference = ticket.reference
            if reference is None:
                if not wait:
                    return False
                reference = self._sealing.wait(ticket)
        self._parts.popleft()
        self._writer.add(Extent(reference, 0, length))
        return True

    def result(self, *, wait: bool) -> tuple[tuple[Extent, ...], int] | None:
        """`extents` and `depth` for the entry, or None when something is not sealed yet."""
        while self._parts:
            if not self._fold(wait=wait):
                return None
        if self._result is None:
            self._result = self._writer.finish()
        return self._result
