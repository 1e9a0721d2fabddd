"""Put the output of programs into a restore point, as if the walk had met it as files.

Pure: what is checked, and what goes between the rows of a walk. `Scan` runs the programs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from blake3 import blake3

from agent.backup.select.places import normalise
from agent.backup.select.walk import OPEN_DIRECTORY, Listing, Row, line_of
from protocol.errors import InvalidError
from protocol.selection import Commands, CommandStream
from protocol.vault.path import children_prefix, is_path, join

MAX_STREAMS = 100
MAX_TIMEOUT_S = 7 * 24 * 3600


def check_commands(commands: Commands, paths: Iterable[bytes]) -> dict[bytes, CommandStream]:
    """The streams by their normalised paths. Raises `InvalidError` for what cannot be."""
    if len(commands.streams) > MAX_STREAMS:
        raise InvalidError(f"a backup has at most {MAX_STREAMS} streams")
    if commands.timeout_s > MAX_TIMEOUT_S:
        raise InvalidError("a command may take seven days at most")
    for argv in (commands.before, commands.after, *(one.argv for one in commands.streams)):
        if any("\0" in word for word in argv) or (argv and not argv[0]):
            raise InvalidError("a command has a program, and no NUL in its words")
    named = normalise(paths)
    found: dict[bytes, CommandStream] = {}
    for one in commands.streams:
        shown = one.path[:200].decode(errors="backslashreplace")
        (path,) = normalise([one.path])
        if not path or not is_path(path) or one.path.endswith(b"/"):
            raise InvalidError(f"{shown!r} cannot be the file of a stream")
        if not one.argv:
            raise InvalidError(f"the stream {shown} has no program; give PATH='program arg …'")
        for other in (*named, *found):
            if _touch(path, other):
                raise InvalidError(
                    f"the stream {shown} and /{other.decode(errors='backslashreplace')} are in "
                    "each other's way; give it a path of its own, such as /streams/database.sql"
                )
        found[path] = one
    return found


def _touch(one: bytes, other: bytes) -> bool:
    return one == other or (other + b"/").startswith(one + b"/") or _is_below(one, other)


def _is_below(path: bytes, directory: bytes) -> bool:
    """Whether a normalised path lies below a directory; everything is below the root."""
    return not directory or path.startswith(directory + b"/")


def hash_of_streams(streams: Mapping[bytes, CommandStream]) -> bytes:
    """Changes when other files come from programs; empty when there are none."""
    if not streams:
        return b""
    state = blake3(derive_key_context="stead backup streams v1")
    for path in sorted(streams):
        state.update(len(path).to_bytes(4, "little") + path)
    return state.digest()


@dataclass(slots=True)
class Streams:
    """The streams of one backup. `now_ns` is the time of the files and folders it makes."""

    by_path: Mapping[bytes, CommandStream] = field(default_factory=dict)
    limit_s: float = 0.0
    now_ns: int = 0
    folders: set[bytes] = field(default_factory=set)
    """Folders on the way to streams that are on no disk, once the walk has passed them."""

    def among(self, listings: Iterable[Listing], start: bytes) -> Iterator[Listing]:
        """The listings of a walk from `start`, with the rows of the streams between them.

        Streams lie outside of the named paths, so that only a listing of what leads to
        those can be of a directory that has a stream too; it is never in several pieces.
        """
        waiting = self._rows()
        for listing in listings:
            while waiting and children_prefix(waiting[0][0]) < listing.prefix:
                yield self._made(*waiting.pop(0), start)
            is_top = listing.rows[0][0] == b""
            if waiting and waiting[0][0] == listing.parent and not is_top:
                yield listing._replace(rows=self._mixed(listing, waiting.pop(0)[1]))
            else:
                yield listing
        for parent, rows in waiting:
            yield self._made(parent, rows, start)

    def parents(self) -> list[bytes]:
        """The directories that have a stream, or a folder on the way to one."""
        return [parent for parent, _ in self._rows()]

    def children(
        self, parent: bytes, listings: Iterable[Listing], start: bytes
    ) -> Iterator[Listing]:
        """What `Walk.children` lists of a directory, with what streams add to it."""
        rows = dict(self._rows()).get(parent, [])
        is_empty = True
        for listing in listings:
            is_empty = False
            yield listing._replace(rows=self._mixed(listing, rows)) if rows else listing
        if rows and is_empty:
            yield self._made(parent, rows, start)

    def _rows(self) -> list[tuple[bytes, list[Row]]]:
        """What there is to add: directories, and the rows in each; in key order."""
        modes = dict.fromkeys(self.by_path, stat.S_IFREG | 384)
        for path in self.by_path:
            above = path.rpartition(b"/")[0]
            while above:
                modes[above] = stat.S_IFDIR | 0o755
                above = above.rpartition(b"/")[0]
        rows: dict[bytes, list[Row]] = {}
        for path, mode in modes.items():
            parent, _, name = path.rpartition(b"/")
            seen = self._stat(mode)
            rows.setdefault(parent, []).append((name, seen, line_of(name, seen)))
        return sorted(
            ((parent, sorted(found)) for parent, found in rows.items()),
            key=lambda pair: children_prefix(pair[0]),
        )

    def _stat(self, mode: int) -> os.stat_result:
        seconds = self.now_ns // 1_000_000_000
        times = {"st_mtime_ns": self.now_ns, "st_ctime_ns": self.now_ns}
        return os.stat_result((mode, 0, 0, 1, 0, 0, 0, seconds, seconds, seconds), times)

    def _made(self, parent: bytes, rows: list[Row], start: bytes) -> Listing:
        self._note(parent, rows)
        return Listing(parent, children_prefix(parent), os.open(start, OPEN_DIRECTORY), rows)

    def _mixed(self, listing: Listing, rows: list[Row]) -> list[Row]:
        there = {row[0] for row in listing.rows if stat.S_ISDIR(row[1].st_mode)}
        added = [row for row in rows if row[0] not in there]
        self._note(listing.parent, added)
        names = {row[0] for row in added}
        return sorted([*(row for row in listing.rows if row[0] not in names), *added])

    def _note(self, parent: bytes, rows: list[Row]) -> None:
        self.folders |= {join(parent, name) for name, seen, _ in rows if stat.S_ISDIR(seen.st_mode)}
