"""Plan how chunks are read from packs: windows of a question, few ranges for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.vault.index import Place
from protocol.vault.chunk import ChunkId
from protocol.vault.pack import PackId

WINDOW_BYTES = 8 * 1024 * 1024
_GAP_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Range:
    """A piece of a pack, and the chunks that are wanted of it."""

    pack: PackId
    offset: int
    length: int
    chunks: tuple[ChunkId, ...]


def plan_windows(
    asked: Sequence[ChunkId], places: Mapping[ChunkId, Place], window_bytes: int = WINDOW_BYTES
) -> Iterator[list[ChunkId]]:
    """Cut a question into pieces of about `window_bytes` that are read as one."""
    window: list[ChunkId] = []
    size = 0
    for chunk in asked:
        if window and size + places[chunk].length > window_bytes:
            yield window
            window, size = [], 0
        window.append(chunk)
        size += places[chunk].length
    if window:
        yield window


def plan_ranges(window: Sequence[ChunkId], places: Mapping[ChunkId, Place]) -> list[Range]:
    """The ranges to read for a window: neighbours in a pack are read together."""
    ranges: list[Range] = []
    ordered = sorted(set(window), key=lambda chunk: (places[chunk].pack, places[chunk].offset))
    for chunk in ordered:
        place = places[chunk]
        end = place.offset + place.length
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last.pack == place.pack
            and place.offset - last.offset - last.length <= _GAP_BYTES
        ):
            length = max(end - last.offset, last.length)
            ranges[-1] = Range(last.pack, last.offset, length, (*last.chunks, chunk))
        else:
            ranges.append(Range(place.pack, place.offset, place.length, (chunk,)))
    return ranges
