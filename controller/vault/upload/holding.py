"""Say which chunks are held, in a way that stays true for the session that asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controller.db.database import Database
from controller.vault import index
from controller.vault.upload.pins import Pinned, Pins
from protocol.vault.chunk import ChunkId

Pin = Callable[[Iterable[ChunkId]], None]


def hold(db: Database, tenant: str, ids: Iterable[ChunkId], pin: Pin) -> set[ChunkId]:
    """Those of the chunks that are held; they stay, for what `pin` pins for. Blocks.

    Dead data chunks whose bytes are still there live again. A dead tree chunk is not
    held: what it names may be gone already.
    """
    wanted = set(ids)
    if not wanted:
        return set()
    # First of all: whatever is looked up later cannot be condemned any more.
    pin(wanted)
    found = db.read_now(lambda connection: index.standing(connection, tenant, wanted))
    if not found.revivable:
        return found.held
    revived = db.write_now(lambda connection: index.revive(connection, tenant, found.revivable))
    return found.held | revived


class Hold:
    """What an upload relies on, from its first message until it has left the controller."""

    def __init__(self, pins: Pins, db: Database, tenant: str) -> None:
        self._pins = pins
        self._db = db
        self._tenant = tenant
        self._pinned: Pinned | None = None

    def enter(self, session: str) -> None:
        """The upload is of this session; again does nothing."""
        if self._pinned is None:
            self._pinned = self._pins.enter(self._tenant, session)

    def held(self, ids: set[ChunkId]) -> set[ChunkId]:
        """See `hold`."""
        return hold(self._db, self._tenant, ids, self._pin)

    def leave(self) -> None:
        """Nothing of the upload is under way any more."""
        if self._pinned is not None:
            self._pins.leave(self._pinned)
            self._pinned = None

    def _pin(self, ids: Iterable[ChunkId]) -> None:
        if self._pinned is not None:
            self._pins.add_to(self._pinned, ids)
