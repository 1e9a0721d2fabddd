"""Cover directories with watches, from the paths of a backup set down to the last of them.

A directory is watched before it is looked into, so that nothing appears in it unnoticed.
What cannot be watched is noted as lost and tried again.
"""

from __future__ import annotations

import errno
import os

from agent.watch.evidence import Why
from agent.watch.inotify import Inotify
from agent.watch.mounts import MountPlan, is_below
from agent.watch.places import Place, Places


class BrokenError(Exception):
    """Events may have been lost."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


class Cover:
    """The directories that one generation watches, and where their events come.

    `own` is never watched, and no more than so many `directories` are.
    """

    def __init__(self, paths: tuple[bytes, ...], own: bytes, directories: int) -> None:
        self._paths = paths
        self._own = own
        self._directories = directories
        self.events = Inotify()
        self.places = Places()
        self.places.lost = set(paths)
        self.plan = MountPlan(b"", ())
        self.cookie_watch = -1

    def close(self) -> None:
        """Watch nothing any more, and forget what was watched."""
        self.events.close()
        self.places = Places()

    def again(self, number: int) -> None:
        """Watch once more what was given up, and what another directory stands for now."""
        for path, place in list(self.places.tops.items()):
            if path in self._paths and _identity(path) != place.identity:
                self.drop(place)
                self.places.lost.add(path)
        self.all(number)

    def all(self, number: int) -> None:
        """Watch what is to be watched and is not; it counts as changed for handover `number`."""
        for path in sorted(self.places.lost):
            self.places.mark_whole(path, number)
            parent, _, name = path.rpartition(b"/")
            above = self._find(parent)
            if path in self._paths or above is not None:
                self.below(None if path in self._paths else above, path, name)
        # What could not be watched is tried again, and is walked until then.
        self.places.lost = {path for path in self.places.lost if self._find(path) is None}
        for path in self.places.lost - set(self._paths):
            if not os.path.lexists(b"/" + path):
                self.places.lost.discard(path)

    def below(self, parent: Place | None, path: bytes, name: bytes) -> None:
        """Watch a directory and all below it. Each is watched before it is looked into."""
        left: list[tuple[Place | None, bytes, bytes]] = [
            (parent, path, path if parent is None else name)
        ]
        while left:
            above, path, name = left.pop()
            if path == self._own or path in self.plan.apart:
                continue
            place = self._watch(above, path, name)
            if place is None:
                continue
            try:
                with os.scandir(b"/" + path) as found:
                    for entry in found:
                        if entry.is_dir(follow_symlinks=False):
                            inner = path + b"/" + entry.name if path else entry.name
                            left.append((place, inner, entry.name))
            except OSError:
                # Gone or locked meanwhile: its events tell, and a walk does not see more.
                self.drop(place)
                self.places.lost.add(path)

    def drop(self, place: Place) -> None:
        """Watch a directory and all below it no longer."""
        for watch in self.places.drop(place):
            if watch != self.cookie_watch:
                self.events.remove(watch)

    def _find(self, path: bytes) -> Place | None:
        for top, place in self.places.tops.items():
            if is_below(path, top):
                found: Place | None = place
                for name in path[len(top) :].strip(b"/").split(b"/"):
                    if name and found is not None:
                        found = (found.below or {}).get(name)
                return found
        return None

    def _watch(self, above: Place | None, path: bytes, name: bytes) -> Place | None:
        if len(self.places.of) >= self._directories:
            raise BrokenError(Why.LIMIT)
        try:
            watch = self.events.add(b"/" + path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                # Gone: the directory above tells, and a top one is looked for again.
                return None
            if error.errno in (errno.EACCES, errno.ENAMETOOLONG):
                self.places.lost.add(path)
                return None
            raise
        place = self.places.add(above, name, watch)
        if place is None:
            # The same directory under two paths: events could tell only one of them.
            self.places.lost.add(path)
        elif above is None:
            place.identity = _identity(path)
        return place


def _identity(path: bytes) -> tuple[int, int]:
    try:
        stat = os.lstat(b"/" + path)
    except OSError:
        return 0, 0
    return stat.st_dev, stat.st_ino
