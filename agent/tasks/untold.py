"""Runs of standing orders that nobody has heard of: how many are kept one by one. Pure.

A machine that is away for months makes runs all the same. Beyond a bound the oldest are
summed up: how many ended how, and in which slots. A later run carries the sum and tells it
with its own outcome, so that every run is told, by itself or in the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from protocol.codec import from_ms
from protocol.ids import OrderId
from protocol.outcome import OutcomeState

MOST: Final = 500
"""Runs of one standing order that are kept one by one until somebody has heard of them."""

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of their outcomes together, for results that are long."""


class Untold(msgspec.Struct, frozen=True):
    """Runs that are told in a sum: how many came to which state, and their slots."""

    counts: dict[str, int]
    since_ms: int
    until_ms: int


def to_sum_up(sizes: Mapping[OrderId, int]) -> list[OrderId]:
    """Which of the runs that nobody has heard of are to be summed up: the oldest half.

    `sizes` are the bytes of their outcomes, oldest first; the newest is never among them.
    """
    count, size = len(sizes), sum(sizes.values())
    if count < MOST and size < MOST_BYTES:
        return []
    gone = []
    for order, length in list(sizes.items())[:-1]:
        if count <= MOST // 2 and size <= MOST_BYTES // 2:
            break
        gone.append(order)
        count, size = count - 1, size - length
    return gone


def one_run(state: OutcomeState, slot_ms: int) -> Untold:
    """A run by itself, as a sum."""
    return Untold({state.value: 1}, slot_ms, slot_ms)


def summed(parts: Iterable[Untold]) -> Untold | None:
    """Several sums in one; None for none."""
    counts: Counter[str] = Counter()
    found = list(parts)
    for part in found:
        counts.update(part.counts)
    if not found:
        return None
    since, until = min(p.since_ms for p in found), max(p.until_ms for p in found)
    return Untold(dict(sorted(counts.items())), since, until)


def render(untold: Untold) -> str:
    """The sum in words.

    >>> render(Untold({"failed": 1, "succeeded": 5}, 0, 60_000))
    '6 runs before it, of 1970-01-01 00:00Z to 00:01Z, are told in sum alone: 1 failed, 5 succeeded'
    """
    since, until = from_ms(untold.since_ms), from_ms(untold.until_ms)
    to = f"{until:%H:%M}Z" if since.date() == until.date() else f"{until:%Y-%m-%d %H:%M}Z"
    ended = ", ".join(f"{count} {state}" for state, count in untold.counts.items())
    return (
        f"{sum(untold.counts.values())} runs before it, of {since:%Y-%m-%d %H:%M}Z to {to}, are "
        f"told in sum alone: {ended}"
    )
