"""Whether a pack's object may go: its own index is compared with the database first.

The database says that no row names the pack. That is what a sweep leaves behind, and
also what a damaged or an old database says of a pack that restore points need. So every
chunk that the pack itself lists has to be in no row, or in that of another pack that lists it.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from controller.db.database import Database
from controller.store.store import ObjectMissingError, ObjectStore
from controller.vault import index
from controller.vault.keys import PackKey, pack_key
from controller.vault.survey import contents
from protocol.ids import TenantId
from protocol.vault.chunk import ChunkId
from protocol.vault.pack import PackId, Placed

_REMEMBERED = 8


class Needs:
    """Looks at the packs of one tenant; what it has read of the last few is remembered."""

    def __init__(self, store: ObjectStore, db: Database, tenant: str) -> None:
        self._store = store
        self._db = db
        self._tenant = TenantId(tenant)
        self._read: OrderedDict[PackId, set[Placed]] = OrderedDict()

    def first_of(self, name: PackId) -> ChunkId | None:
        """A chunk that the index has and only this pack is known to hold; None when none is.

        Raises what the store raises, but for a pack that is gone.
        """
        listed = {one.id for one in self._listed(name)}
        places = self._db.read_now(partial(index.locate, tenant=self._tenant, ids=listed))
        entered = self._db.read_now(partial(index.entered, tenant=self._tenant, ids=listed))
        # A row that names no pack is damaged, and this may be the pack that it meant.
        for identity in sorted(entered - places.keys()):
            return identity
        for identity, place in sorted(places.items()):
            wanted = Placed(identity, place.kind, place.offset, place.length)
            if place.pack == name or wanted not in self._listed(place.pack):
                return identity
        return None

    def _listed(self, name: PackId) -> set[Placed]:
        known = self._read.get(name)
        if known is not None:
            self._read.move_to_end(name)
            return known
        try:
            size = self._store.size(pack_key(self._tenant, name))
            placed, _ = contents(self._store, PackKey(self._tenant, name), size)
        except ObjectMissingError:
            placed = []
        found = self._read[name] = set(placed)
        if len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        return found
