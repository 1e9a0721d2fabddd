"""Put entries into the tree in the order of the walk, each as soon as its content is sealed.

Everything passes through one queue: what is ready waits behind what is not, so the
tree gets its entries in key order whatever the sealing threads finish first.
"""

from __future__ import annotations

from collections import deque

from agent.backup.cut.big import BigFile
from agent.backup.cut.named_read import Pending
from agent.backup.cut.stream import SmallStream
from agent.backup.far_time import NAME, near, with_time
from agent.backup.tree.nodes import Block
from agent.backup.tree.plant import Planter
from agent.metadata.extras import NOTHING, Extras
from protocol.vault.entry import Entry, Extent, Owner, Stream

MAX_WAITING = 16_384


class Draft:
    """An entry whose content may not be sealed yet.

    `start` is the place in the small-file stream, `big` a file of its own, `first` the
    first link to the same file. With none of them, `inline` is the content. `named` are its
    streams, read after the content; `placed` is the content while it waits for them.
    """

    __slots__ = (
        "big", "changed", "entry", "extras", "first", "inline", "line", "link_group",
        "mode", "mtime_ns", "name", "named", "owner", "parent", "placed", "size", "start",
    )  # fmt: skip

    def __init__(
        self, parent: bytes, line: bytes, name: bytes, mode: int, owner: Owner, mtime_ns: int
    ) -> None:
        self.parent = parent
        self.line = line
        self.name = name
        self.mode = mode
        self.owner = owner
        self.mtime_ns = mtime_ns
        self.size = 0
        self.start = -1
        self.inline: bytes | None = None
        self.big: BigFile | None = None
        self.first: Draft | None = None
        self.entry: Entry | None = None
        self.extras: Extras = NOTHING
        self.link_group: bytes | None = None
        self.changed = False
        self.named: tuple[Pending, ...] = ()
        self.placed: tuple[Extent, ...] | None = None


def extras_of(entry: Entry) -> Extras:
    """What an entry has of `Extras`: all but its exact time."""
    extensions = tuple(one for one in entry.extensions if one[0] != NAME)
    return Extras(entry.xattrs, extensions, entry.born_ns)


class Assembly:
    """The queue between the walk and the tree."""

    def __init__(self, planter: Planter, stream: SmallStream) -> None:
        self._planter = planter
        self._stream = stream
        self._queue: deque[Draft | Block] = deque()

    def add(self, item: Draft | Block) -> None:
        """Append what comes next in key order."""
        self._queue.append(item)
        if len(self._queue) > MAX_WAITING:
            self._stream.flush()
            self.drain(down_to=MAX_WAITING // 2)

    def drain(self, *, down_to: int | None = None) -> None:
        """Plant what is ready; with `down_to` wait until no more than that is left."""
        queue, plant = self._queue, self._planter.plant
        while queue:
            head = queue[0]
            if isinstance(head, Block):
                self._planter.take_over(head)
            else:
                entry = head.entry
                if entry is None:
                    wait = down_to is not None and len(queue) > down_to
                    entry = self._entry(head, wait=wait)
                    if entry is None:
                        return
                plant(head.parent, entry, head.line, linked=head.link_group is not None)
            queue.popleft()

    def _entry(self, draft: Draft, *, wait: bool) -> Entry | None:
        extents: tuple[Extent, ...] = ()
        streams: tuple[Stream, ...] = ()
        depth, size, inline, changed = 0, draft.size, draft.inline, draft.changed
        if draft.start >= 0:
            placed = draft.placed or self._stream.place(draft.start, size, wait=wait)
            if placed is None:
                return None
            extents = placed
        elif draft.big is not None:
            result = draft.big.result(wait=wait)
            if result is None:
                return None
            extents, depth = result
            size = draft.big.size
        elif draft.first is not None:
            # The first link came earlier in the queue: it is planted already.
            first = draft.first.entry
            assert first is not None
            size, extents, inline = first.size, first.extents, first.inline
            depth, changed, streams = first.depth, first.changed_while_read, first.streams
        if draft.named:
            found = self._streams(draft, extents, wait=wait)
            if found is None:
                return None
            streams = found
        extras = draft.extras
        entry = Entry(
            draft.name,
            draft.mode,
            draft.owner,
            near(draft.mtime_ns),
            size,
            extents,
            inline,
            b"",
            0,
            depth,
            extras.xattrs,
            draft.link_group,
            changed,
            extras.born_ns,
            streams,
            with_time(extras.extensions, draft.mtime_ns),
        )
        if draft.link_group is not None:
            draft.entry = entry
        return entry

    def _streams(
        self, draft: Draft, extents: tuple[Extent, ...], *, wait: bool
    ) -> tuple[Stream, ...] | None:
        # Places are asked for in order: the content's is kept, and none is passed over.
        draft.placed = extents
        found: list[Stream] = []
        for one in draft.named:
            result = one.result(self._stream, wait=wait)
            if result is None:
                return None
            found.append(result)
        return tuple(found)
