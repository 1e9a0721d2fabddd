"""The directories that are watched, as a tree, and which of them have changed.

A change counts under the number of the handover that comes next. The tree follows
renames, so that a directory's path is right at the moment of each event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_UNKNOWN: Final = (0, 0)
MAX_WHOLE: Final = 20_000


class Place:
    """A watched directory. `below` are those inside it, None when there are none.

    `identity` is device and inode of a top one.
    """

    __slots__ = ("below", "identity", "name", "parent", "watch")

    def __init__(self, parent: Place | None, name: bytes, watch: int) -> None:
        self.parent = parent
        self.name = name
        self.watch = watch
        self.identity = _UNKNOWN
        self.below: dict[bytes, Place] | None = None

    def path(self) -> bytes:
        """Its path; a top one's name is a whole path."""
        names = []
        place: Place | None = self
        while place is not None:
            names.append(place.name)
            place = place.parent
        return b"/".join(name for name in reversed(names) if name)


class Places:
    """All watched directories, by the numbers of their watches."""

    def __init__(self) -> None:
        self.of: dict[int, Place] = {}
        self.tops: dict[bytes, Place] = {}
        self.changed: dict[int, int] = {}
        """Watches of changed directories: the number of the handover that tells it."""
        self.whole: dict[bytes, int] = {}
        """Paths below which anything may have changed, likewise."""
        self.lost: set[bytes] = set()
        """Paths that are to be watched and are not, for now."""

    def add(self, parent: Place | None, name: bytes, watch: int) -> Place | None:
        """A directory that is watched now; None when it is known under another path."""
        if watch in self.of:
            return None
        place = Place(parent, name, watch)
        self.of[watch] = place
        if parent is None:
            self.tops[name] = place
        else:
            if parent.below is None:
                parent.below = {}
            parent.below[name] = place
        return place

    def drop(self, place: Place) -> Iterator[int]:
        """Forget a directory and all below it; the watches that are to be removed."""
        if place.parent is None:
            self.tops.pop(place.name, None)
        elif place.parent.below is not None:
            place.parent.below.pop(place.name, None)
        left = [place]
        while left:
            one = left.pop()
            left.extend((one.below or {}).values())
            self.of.pop(one.watch, None)
            self.changed.pop(one.watch, None)
            yield one.watch

    def mark_whole(self, path: bytes, number: int) -> None:
        """Note that anything below a path may have changed."""
        if len(self.whole) >= MAX_WHOLE:
            self.whole = dict.fromkeys((*self.tops, *self.lost), number)
        self.whole[path] = number

    def forget(self, number: int) -> None:
        """What was told by this handover or an earlier one is in a restore point."""
        self.changed = {one: told for one, told in self.changed.items() if told > number}
        self.whole = {path: told for path, told in self.whole.items() if told > number}

    def busiest(self, counts: dict[int, int]) -> Place | None:
        """The deepest directory with at least half of these events in it and below it."""
        sums: dict[int, int] = {}
        for watch, count in counts.items():
            place = self.of.get(watch)
            while place is not None:
                sums[place.watch] = sums.get(place.watch, 0) + count
                place = place.parent
        half = sum(counts.values()) / 2
        found = max(self.tops.values(), key=lambda one: sums.get(one.watch, 0), default=None)
        while found is not None:
            below = max(
                (found.below or {}).values(), key=lambda one: sums.get(one.watch, 0), default=None
            )
            if below is None or sums.get(below.watch, 0) < half:
                break
            found = below
        return found
