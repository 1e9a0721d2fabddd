"""Read named streams for a backup: small ones with the small files, the others as big ones."""

from __future__ import annotations

from collections.abc import Callable

from agent.backup.cut.big import BigFile
from agent.backup.cut.stream import SmallStream
from agent.backup.skipped import reason_of
from agent.metadata.named import Listing, Named
from agent.metadata.system import SYSTEM
from protocol.vault.cut import Cutter
from protocol.vault.entry import Extent, Stream
from protocol.vault.sizes import SMALL_FILE_BYTES


class Pending:
    """A named stream whose content may not be sealed yet.

    `start` is its place in the stream of small files, `big` its content otherwise; an
    empty one has neither.
    """

    __slots__ = ("_big", "_name", "_result", "_size", "_start")

    def __init__(self, name: bytes, size: int, start: int, big: BigFile | None) -> None:
        self._name = name
        self._size = size
        self._start = start
        self._big = big
        self._result: Stream | None = None

    def result(self, small: SmallStream, *, wait: bool) -> Stream | None:
        """What an entry has of it, or None when something is not sealed yet."""
        if self._result is None:
            extents: tuple[Extent, ...] = ()
            depth = 0
            if self._start >= 0:
                placed = small.place(self._start, self._size, wait=wait)
                if placed is None:
                    return None
                extents = placed
            elif self._big is not None:
                result = self._big.result(wait=wait)
                if result is None:
                    return None
                extents, depth = result
            self._result = Stream(self._name, self._size, extents, depth)
        return self._result


class NamedReader:
    """Reads the streams of one thing after another; `tick` is told the bytes of each step."""

    def __init__(
        self,
        small: SmallStream,
        cutter: Cutter,
        new_big: Callable[[], BigFile],
        tick: Callable[[int], None],
    ) -> None:
        self._small = small
        self._cutter = cutter
        self._new_big = new_big
        self._tick = tick

    def take(
        self, directory: int, name: bytes, listing: Listing
    ) -> tuple[tuple[Pending, ...], tuple[str, ...]]:
        """Read those that were listed; and a sentence for each that is not kept."""
        read: list[Pending] = []
        left_out = list(listing.left_out)
        for one in listing.streams:
            try:
                read.append(self._read(directory, name, one))
            except OSError as error:
                shown = one.name.decode(errors="backslashreplace")
                left_out.append(f"its named stream {shown}: {reason_of(error)}")
        return tuple(read), tuple(left_out)

    def _read(self, directory: int, name: bytes, one: Named) -> Pending:
        content = read_small_stream(directory, name, one)
        if content is not None:
            self._tick(len(content))
            self._small.room()[: len(content)] = content
            start = self._small.add(len(content)) if content else -1
            return Pending(one.name, len(content), start, None)
        big = self._new_big()
        with SYSTEM.read_stream(directory, name, one.name) as fill:
            big.pour(fill, self._cutter, self._tick)
        return Pending(one.name, big.size, -1, big)


def read_small_stream(directory: int, name: bytes, one: Named) -> bytes | None:
    """A stream that is as short as small files are; None when it is not. Raises `OSError`."""
    if one.size >= SMALL_FILE_BYTES:
        return None
    room = bytearray(one.size + 1)
    with SYSTEM.read_stream(directory, name, one.name) as fill:
        got = fill(memoryview(room))
    # Longer than it was listed: read as a big one, which may grow.
    return bytes(memoryview(room)[:got]) if got <= one.size else None
