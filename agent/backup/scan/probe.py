"""Look again at a few files that nobody looked at, because no event said that they changed.

One that has changed all the same was missed: then events cannot be relied on here.
"""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from typing import Final, NamedTuple

from agent.backup.beneath import Beneath
from agent.backup.cut.read import ChangedTypeError, is_small
from agent.backup.scan.sample import Taken, take
from agent.backup.select.walk import MARK_BYTES, line_of
from agent.backup.tree.nodes import Block
from agent.backup.tree.state import Previous, is_trusted
from protocol.vault.entry import Entry
from protocol.vault.path import join

SIZE: Final = 8
_FILE: Final = 8


class Found(NamedTuple):
    """Files to compare with the vault, and paths of which an event was missed."""

    taken: list[Taken]
    missed: list[bytes]


class Probe:
    """Chooses entries out of whole nodes, each equally likely, and looks at them."""

    def __init__(self, seed: random.Random) -> None:
        self._seed = seed
        self._blocks: list[Block] = []
        self._upto: list[int] = []
        self._kept: list[tuple[bytes, Entry, bytes]] = []
        self._kept_count = 0

    def offer(self, block: Block) -> None:
        """This node was taken over without a look."""
        self._blocks.append(block)
        before = self._upto[-1] if self._upto else 0
        self._upto.append(before + block.node().entries)

    def offer_one(self, found: tuple[bytes, Entry, bytes]) -> None:
        """This entry was; of all such ones each is equally likely to be looked at."""
        self._kept_count += 1
        if len(self._kept) < SIZE:
            self._kept.append(found)
        elif (place := self._seed.randrange(self._kept_count)) < SIZE:
            self._kept[place] = found

    def look(self, previous: Previous, start: bytes, before_ns: int) -> Found:
        """Look at `SIZE` of them; what changed after `before_ns` may have been told since.

        Raises `StateDamagedError`.
        """
        found = Found([], [])
        whole = self._upto[-1] if self._upto else 0
        entries = whole + self._kept_count
        if not entries:
            return found
        beneath = Beneath(start)
        try:
            kept = iter(self._kept)
            for number in sorted(self._seed.sample(range(entries), min(SIZE, entries))):
                one = self._entry(previous, number) if number < whole else next(kept)
                parent, entry, mark = one
                self._look_at(beneath, parent, entry, mark, before_ns, found)
        finally:
            beneath.close()
        return found

    def _entry(self, previous: Previous, number: int) -> tuple[bytes, Entry, bytes]:
        place = bisect_right(self._upto, number)
        block = self._blocks[place]
        number -= self._upto[place - 1] if place else 0
        while block.node().level:
            for below in previous.below(block):
                entries = below.node().entries
                if number < entries:
                    block = below
                    break
                number -= entries
        return previous.entries(block)[number]

    def _look_at(
        self,
        beneath: Beneath,
        parent: bytes,
        entry: Entry,
        mark: bytes,
        before_ns: int,
        found: Found,
    ) -> None:
        if not entry.name or not is_trusted(mark):
            return
        try:
            fd = beneath.open(parent)
        except OSError:
            return
        try:
            stat = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
            if line_of(b"", stat)[-MARK_BYTES:] != mark:
                if stat.st_ctime_ns < before_ns:
                    found.missed.append(join(parent, entry.name))
                return
            if entry.mode >> 12 != _FILE or not is_small(stat):
                return
            taken = take(fd, join(parent, entry.name), entry, stat)
            if taken is not None:
                found.taken.append(taken)
        except FileNotFoundError:
            if os.fstat(fd).st_ctime_ns < before_ns:
                found.missed.append(join(parent, entry.name))
        except (OSError, ChangedTypeError):
            # It changed a moment ago: the next run is told.
            return
        finally:
            os.close(fd)
