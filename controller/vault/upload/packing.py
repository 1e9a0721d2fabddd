"""Sort the chunks of one upload into packs and know how many of them are durable.

No I/O: what is held already is asked through an argument, packs that are full are
fetched by the writer, and the writer says when one is durable. `absorb` and `seal` may
run in a thread, one at a time; everything else belongs to the event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from controller.vault.errors import ChunkMissingError
from protocol.vault.chunk import ChunkDamagedError, ChunkId, Header, Kind, chunk_id, inspect
from protocol.vault.pack import PACK_BYTES, PackBuilder, Placed

MAX_PACK_CHUNKS = 8192
"""Keeps the index transaction of a pack of tiny chunks short."""
LAG_PACKS = 8
"""A pack that waits for company is closed when so many of the other kind went by."""

Held = Callable[[set[ChunkId]], set[ChunkId]]


class GrowingPack:
    """A pack on its way from memory to the disk."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.builder = PackBuilder(kind)
        self.placed: list[Placed] = []
        self.kept_bytes = 0
        self.durable = False
        self.passed_by = 0

    def add(self, identity: ChunkId, stored: bytes) -> None:
        """Append a chunk whose id was computed from these very bytes."""
        offset = self.builder.add(identity, stored)
        self.placed.append(Placed(identity, self.kind, offset, len(stored)))
        self.kept_bytes += len(stored)

    def settle(self) -> None:
        """It is durable and indexed: let go of the bytes."""
        self.durable = True
        self.builder = PackBuilder(self.kind)


class Packing:
    """The packs of one upload; see the module."""

    def __init__(self, pack_bytes: int = PACK_BYTES) -> None:
        self._pack_bytes = pack_bytes
        self._open: dict[Kind, GrowingPack] = {}
        self._sealed: deque[GrowingPack] = deque()
        self._all: deque[GrowingPack] = deque()
        # Only `absorb` takes away from here, so nothing vanishes while it works.
        self._pending: dict[ChunkId, GrowingPack] = {}
        self._order: deque[GrowingPack | None] = deque()
        self._durable = 0
        self.kept_bytes = 0
        """What was put into packs, from the beginning."""

    def absorb(self, arrived: Sequence[bytes], held: Held) -> None:
        """Check chunks and put those that are new into packs.

        Raises `ChunkDamagedError` for what is no chunk and `ChunkMissingError` for a
        tree chunk whose children are neither held nor came earlier. What came before
        the offender is kept.
        """
        self._forget_settled()
        chunks = [(chunk_id(stored), _whole(stored), stored) for stored in arrived]
        asked = {identity for identity, _, _ in chunks}
        for _, header, _ in chunks:
            asked.update(header.children)
        known = held({identity for identity in asked if identity not in self._pending})
        for identity, header, stored in chunks:
            pack = self._pending.get(identity)
            if pack is None and identity not in known:
                for child in header.children:
                    if child not in known and child not in self._pending:
                        raise ChunkMissingError(child, wanted_by=identity)
                pack = self._place(identity, header.kind, stored)
            # One entry a chunk: the event loop takes from the other end meanwhile.
            self._order.append(pack)

    def seal(self) -> None:
        """Close what is open, content before trees."""
        for kind in (Kind.DATA, Kind.TREE):
            self._close(kind)

    @property
    def has_sealed(self) -> bool:
        """Whether a pack waits to be stored."""
        return bool(self._sealed)

    def take_sealed(self) -> GrowingPack:
        """The next pack to be stored; children come before what names them."""
        return self._sealed.popleft()

    def advance(self) -> int:
        """How many chunks from the beginning are durable by now."""
        while self._order:
            pack = self._order[0]
            if pack is not None and not pack.durable:
                break
            self._durable += 1
            self._order.popleft()
        return self._durable

    def _place(self, identity: ChunkId, kind: Kind, stored: bytes) -> GrowingPack:
        pack = self._open.get(kind)
        if pack is None:
            pack = self._open[kind] = GrowingPack(kind)
        pack.add(identity, stored)
        self.kept_bytes += len(stored)
        self._pending[identity] = pack
        if pack.kept_bytes >= self._pack_bytes or len(pack.placed) >= MAX_PACK_CHUNKS:
            self._full(kind)
        return pack

    def _full(self, kind: Kind) -> None:
        """Close a full pack; a pack of trees goes after the content that it may name."""
        if kind is Kind.TREE:
            self._close(Kind.DATA)
        self._close(kind)
        other = self._open.get(Kind.TREE)
        if other is not None:
            other.passed_by += 1
            if other.passed_by >= LAG_PACKS:
                self._close(Kind.TREE)

    def _close(self, kind: Kind) -> None:
        pack = self._open.pop(kind, None)
        if pack is not None:
            self._all.append(pack)
            self._sealed.append(pack)

    def _forget_settled(self) -> None:
        while self._all and self._all[0].durable:
            pack = self._all.popleft()
            for chunk in pack.placed:
                del self._pending[chunk.id]
            pack.placed = []


def _whole(stored: bytes) -> Header:
    header = inspect(stored)
    if header.stored_bytes != len(stored):
        raise ChunkDamagedError(chunk_id(stored), "bytes follow its end")
    return header
