"""Write a part of a restore point into a directory.

Entries come in key order, which is nearly the order in which their content was cut, so
a window of them needs few chunks. While one window is written, the chunks of the next
are on their way; see `agent.backup.restore.fetch` for when they are opened.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.backup.restore.belonging import Belonging, Owners
from agent.backup.restore.bounds import Bounds
from agent.backup.restore.durable import Written
from agent.backup.restore.extra import Extras, Removals, nothing_removed
from agent.backup.restore.fetch import Fetcher, Plain
from agent.backup.restore.flow import Flow
from agent.backup.restore.named_content import NamedContent
from agent.backup.restore.own_home import LEFT, without_own
from agent.backup.restore.placed import Done, OpenFile
from agent.backup.restore.placer import Placer
from agent.backup.restore.present import Change, Present
from agent.backup.restore.preview import Preview
from agent.backup.restore.window import Item, Window
from agent.backup.send.upload import PATIENCE_S
from agent.backup.send.vault import Vault
from agent.host import clock
from protocol.errors import SteadError
from protocol.vault.chunk import Buffer, Opener, Reference, Sealer
from protocol.vault.entry import Entry, Extent, Kind
from protocol.vault.keys import VaultSecret
from protocol.vault.node import Root
from protocol.vault.reader import Found, Span, TreeReader
from protocol.vault.sizes import SMALL_FILE_BYTES

WINDOW_BYTES = 12 * 1024 * 1024
LEAST_BYTES = 256 * 1024
"""A window at the lowest limit: with one, windows are of two seconds, so that it is told of."""

WINDOW_ITEMS = 8_192
_PROGRESS_S = 0.3
_DIRECTORY = int(Kind.DIRECTORY)


class Restore:
    """Restores `spans` into `target`; what lies above `strip` is left out of the paths.

    `secret` is the one that the spans were made with. `written` learns what is to be made
    durable. With `bounds`, what is not in the spans is removed, but for what they keep, once
    all that is in them was restored; the spans are then all of one subtree. Directories in
    `own`, device and inode of each, are left as they are. `flow` says when to wait. Call
    `run` once.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        *,
        strip: bytes,
        target: bytes,
        overwrite: bool,
        vault: Vault,
        secret: VaultSecret,
        seed: random.Random,
        progress: Callable[[Mapping[str, Any]], None],
        patience_s: float = PATIENCE_S,
        owners: Owners = Owners.NAME,
        flags: bool = False,
        verify: bool = False,
        written: Written | None = None,
        bounds: Bounds | None = None,
        own: frozenset[tuple[int, int]] = frozenset(),
        flow: Flow | None = None,
    ) -> None:
        self._flow = flow or Flow()
        limit = self._flow.limit
        self._window_bytes = (
            min(WINDOW_BYTES, max(2 * limit, LEAST_BYTES)) if limit else (WINDOW_BYTES)
        )
        self._written = written
        self._target = target
        self._bounds = bounds
        self._own = own
        self.removals = Removals()
        self._spans = spans
        self._strip = strip
        self._secret = secret
        self._progress = progress
        self._begun = clock.monotonic()
        self._next_word = 0.0
        self._overwrite = overwrite
        belonging = Belonging(owners)
        self._present = Present(target, belonging, exact=overwrite)
        self._fetcher = Fetcher(vault, secret, seed, patience_s=patience_s, flow=self._flow)
        self._reader = TreeReader(Opener(secret), self._fetcher.nodes, self._lost)
        self._verify = verify
        self._sealer = Sealer(secret)
        self._named = NamedContent(self._reader, self._fetcher, self._sealer)
        self._placer = Placer(
            target,
            belonging,
            overwrite=overwrite,
            flags=flags,
            content_of=self._named.of,
            written=written,
        )
        self._open: OpenFile | None = None
        roots = [node for span in spans for node in span.nodes if isinstance(node, Root)]
        self._total_bytes = sum(node.bytes for node in roots)
        self.fetched_bytes = 0

    def run(self) -> Done:
        """Restore; what could not be is in the answer.

        Raises `TargetFullError`, `UnavailableError` when the controller stayed away, and
        what is wrong with a node of the tree, after the entries before it were restored.
        """
        with self._placer as placer, self._fetcher as fetcher:
            try:
                previous: Window | None = None
                for window in self._windows():
                    fresh = [one for key, one in window.wanted.items() if not fetcher.has(key)]
                    if previous is not None:
                        fresh = [one for one in fresh if one.id not in previous.wanted]
                    window.calls = fetcher.start(fresh)
                    if previous is not None:
                        if previous.is_large:
                            window.opening = fetcher.open(window.wanted, window.calls)
                        self._write(previous)
                    previous = window
                if previous is not None:
                    self._write(previous)
                placer.settle()
                placer.give_streams()
                self._remove_extras(act=True)
            finally:
                if self._open is not None:
                    placer.abandon(self._open, "the restore ended before it")
                    self._open = None
                placer.finish()
                self._present.close()
                self.fetched_bytes = fetcher.fetched_bytes
        return placer.done

    def preview(self) -> Preview:
        """What `run` would do, found by looking alone; raises as it does."""
        found = Preview()
        with self._placer as placer, self._fetcher:
            try:
                for below, entry in self._entries():
                    change = self._present.change(below, entry)
                    if self._present.is_blocked(below):
                        placer.fail(below, entry.name, "its folder cannot be made")
                    elif self._is_left(change):
                        placer.leave(below, entry.name)
                    elif change is not Change.ATTRIBUTES or self._overwrite:
                        found.add(below, entry, change)
                self._remove_extras(act=False)
            finally:
                self._present.close()
        return found

    def _is_left(self, change: Change) -> bool:
        return change is Change.BLOCKED or (change is Change.OVERWRITE and not self._overwrite)

    def _remove_extras(self, *, act: bool) -> None:
        if self._bounds is None:
            return
        if self._placer.makes_parents:
            self.removals.failed.add(
                b"", "nothing was removed: what the restore point has is not all known"
            )
            return
        left = self._placer.done.failed.count
        if left:
            # It may be the only copy of what is missing, under a newer name.
            self.removals.failed.add(b"", nothing_removed(left))
            return
        with Extras(
            self._target, self._strip, self._bounds, act=act, own=self._own, written=self._written
        ) as extras:
            # Read again, without leaving out what is lost: that would look like an extra.
            reader = TreeReader(Opener(self._secret), self._fetcher.nodes)
            extras.clear_all(self._held_back(reader.read(*self._spans)))
        self.removals = extras.removals

    def _held_back(self, found: Iterator[Found]) -> Iterator[Found]:
        for one in found:
            self._flow.hold()
            yield one

    def _windows(self) -> Iterator[Window]:
        window = Window()
        for item in self._items():
            window.items.append(item)
            for extent in (*item.extents, *self._beside(item)):
                reference = extent.reference
                if reference is not None and reference.id not in window.wanted:
                    window.wanted[reference.id] = reference
                    window.size += reference.length
            if window.size >= self._window_bytes or len(window.items) >= WINDOW_ITEMS:
                yield window
                window = Window()
        if window.items:
            yield window

    def _beside(self, item: Item) -> Iterator[Extent]:
        """The content of small named streams: it lies beside that of small files."""
        if not item.entry.streams or not item.last or item.same:
            return
        if item.entry.mode >> 12 == Kind.FILE and self._present.takes_streams(item.parent):
            for stream in item.entry.streams:
                if not stream.depth and stream.size < SMALL_FILE_BYTES:
                    yield from stream.extents

    def _items(self) -> Iterator[Item]:
        for below, entry in self._entries():
            if entry.mode >> 12 != _DIRECTORY:
                change = self._present.change(below, entry)
                if change is Change.SAME and self._verify and (entry.size or entry.streams):
                    held = self._held(below, entry)
                    if held is None:
                        # Compared once the content is at hand; a slice fits a window.
                        yield Item(below, entry, entry.extents, doubted=True)
                        continue
                    change = Change.SAME if held else Change.OVERWRITE
                if change is Change.SAME:
                    yield Item(below, entry, (), same=True)
                    continue
                if self._is_left(change):
                    self._placer.leave(below, entry.name)
                    continue
            extents = entry.extents
            if not extents or (not entry.depth and len(extents) == 1):
                yield Item(below, entry, extents)
            else:
                yield from self._parts(below, entry, self._reader)

    def _held(self, below: bytes, entry: Entry) -> bool | None:
        """Whether what looks the same has the same content; None needs it fetched."""
        extents = self._reader.extents(entry.extents, entry.depth)
        try:
            held = self._present.holds(below, entry, extents, self._sealer)
            if held and entry.streams:
                held = self._present.holds_streams(below, entry, self._named)
        except SteadError:
            # Whoever writes it anew says what is wrong.
            return False
        chunks = [one.reference.length for one in entry.extents if one.reference is not None]
        fits = not entry.depth and sum(chunks) <= WINDOW_BYTES
        return held if held is not None or fits else False

    def _entries(self) -> Iterator[tuple[bytes, Entry]]:
        """What there is to restore, each with the path of its folder below the target."""
        return without_own(self._all(), self._is_own, self._leave_own)

    def _all(self) -> Iterator[tuple[bytes, Entry]]:
        strip, prefix = self._strip, len(self._strip) + 1 if self._strip else 0
        for parent, entry in self._reader.read(*self._spans):
            self._flow.hold()
            # The top itself: the target is somebody else's, and stays as it is.
            if entry.name:
                yield parent[prefix:] if parent.startswith(strip) else parent, entry

    def _is_own(self, parent: bytes, name: bytes) -> bool:
        return bool(self._own) and self._present.identity(parent, name) in self._own

    def _leave_own(self, path: bytes) -> None:
        self._placer.done.warnings.add(path, LEFT)

    def _lost(self, node: Root, reason: SteadError) -> None:
        """Entries whose names are lost with the node that held them."""
        self._placer.make_parents()
        what = "1 entry" if node.entries == 1 else f"{node.entries} entries"
        self._placer.done.failed.add(
            b"", f"{what} somewhere below, {node.files} of them files: {reason}"
        )

    def _parts(self, parent: bytes, entry: Entry, reader: TreeReader) -> Iterator[Item]:
        part: list[Extent] = []
        size = 0
        first = True
        try:
            for extent in reader.extents(entry.extents, entry.depth):
                part.append(extent)
                size += extent.length if extent.reference is not None else 0
                if size >= self._window_bytes // 2 or len(part) >= WINDOW_ITEMS:
                    yield Item(parent, entry, part, first, last=False)
                    part, size, first = [], 0, False
        except SteadError as error:
            # What was written of it is removed when the next entry begins.
            if first:
                self._placer.fail(parent, entry.name, str(error))
            return
        yield Item(parent, entry, part, first, last=True)

    def _write(self, window: Window) -> None:
        wanted, fetcher = window.wanted, self._fetcher
        opening = window.opening or fetcher.open(wanted, window.calls)
        plain = self._named.plain = fetcher.plain(wanted, opening)
        placer = self._placer
        for item in window.items:
            if self._flow.is_paused and self._open is None:
                placer.rest()
            self._flow.hold()
            entry = item.entry
            if item.first:
                if self._open is not None:
                    placer.abandon(self._open, "a part of its list of extents is missing")
                    self._open = None
                if item.same:
                    placer.keep(item.parent, entry)
                    continue
                if item.doubted:
                    pieces = self._pieces(item, plain)
                    if isinstance(pieces, str):
                        placer.fail(item.parent, entry.name, pieces)
                        continue
                    if self._holds(item, pieces):
                        placer.keep(item.parent, entry)
                        continue
                    if not self._overwrite:
                        placer.leave(item.parent, entry.name)
                        continue
                if not placer.place(item.parent, entry):
                    continue
                self._open = placer.create(item.parent, entry)
            file = self._open
            if file is None:
                continue
            pieces = self._pieces(item, plain)
            if isinstance(pieces, str):
                placer.abandon(file, pieces)
                self._open = None
            elif not placer.write(file, pieces):
                self._open = None
            elif item.last:
                self._open = None
                placer.close(file)
        if self._open is None:
            placer.rest()
        self._fetcher.keep(plain)
        self._tick()

    def _holds(self, item: Item, pieces: list[Buffer | int]) -> bool:
        parent, entry = item.parent, item.entry
        if not self._present.holds_pieces(parent, entry, pieces):
            return False
        try:
            return not entry.streams or self._present.holds_streams(parent, entry, self._named)
        except SteadError:
            # Whoever writes it anew says what is wrong.
            return False

    @property
    def done(self) -> Done:
        """What was restored so far; whole once `run` has ended, in whatever way."""
        return self._placer.done

    @staticmethod
    def _pieces(item: Item, plain: Plain) -> list[Buffer | int] | str:
        """What to write, or the reason why it cannot be."""
        inline = item.entry.inline
        if inline is not None:
            return [inline] if inline else []
        pieces: list[Buffer | int] = []
        for reference, offset, length in _fields(item.extents):
            if reference is None:
                pieces.append(length)
                continue
            content = plain[reference.id]
            if isinstance(content, SteadError):
                return str(content)
            pieces.append(memoryview(content)[offset : offset + length])
        return pieces

    def _tick(self) -> None:
        now = clock.monotonic()
        if now < self._next_word:
            return
        self._next_word = now + _PROGRESS_S
        done = self._placer.done
        elapsed = max(now - self._begun, 0.001)
        rate = done.bytes / elapsed
        said: dict[str, Any] = {"phase": "restore"}
        if rate and self._total_bytes > done.bytes:
            said["eta"] = round((self._total_bytes - done.bytes) / rate, 1)
        said |= {
            "rate": int(rate),
            "files": done.files,
            "bytes": done.bytes,
            "sent_bytes": self._fetcher.fetched_bytes,
            "new_bytes": done.bytes,
        }
        self._progress(said)


def _fields(extents: Sequence[Extent]) -> Iterator[tuple[Reference | None, int, int]]:
    return ((extent.reference, extent.offset, extent.length) for extent in extents)
