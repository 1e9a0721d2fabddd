"""Keep files on their way, sealed piece by piece, for a while and within bounds.

Everything that counts is in the object store; see `controller.parcels.kept`. What is held
is known in memory besides, read from the store's names once, so no question looks at the
disk and only a piece itself is read or written. Pieces go to the disk beside one another:
no lock is held meanwhile but that of the very piece.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
from blake3 import blake3

from controller.parcels.kept import (
    TOP,
    About,
    Kept,
    Name,
    Piece,
    parse_name,
    room_of,
)
from controller.store.store import ObjectMissingError, ObjectStore, StoreFullError
from protocol.abreast import abreast
from protocol.errors import UNREADABLE, Code, DeniedError, InvalidError, NotFoundError, SteadError
from protocol.ids import TenantId, check_id
from protocol.parcel import MAX_PIECES, OPERATOR, SEALED_PIECE_BYTES, pieces_in

TENANT_BYTES = 16 * 1024 * 1024 * 1024
"""All of one tenant's parcels together."""

FREE_BYTES = 1024 * 1024 * 1024
"""Stay free for what is not thrown away again."""

LONGEST_KEEP = timedelta(days=40)
MAX_MACHINES = 20_000
_LOCKS = 64
_DELETES_AT_ONCE = 8


class Parcels:
    """Every method blocks. `now` is the clock."""

    def __init__(
        self, store: ObjectStore, now: Callable[[], datetime], *, tenant_bytes: int = TENANT_BYTES
    ) -> None:
        self._store = store
        self._now = now
        self._tenant_bytes = tenant_bytes
        # Taken in this order: the parcel's for its beginning and its end, the piece's, and
        # the door for what is in memory, with nothing of the disk under it.
        self._gates = _Locks()
        self._places = _Locks()
        self._door = threading.Lock()
        self._all: dict[tuple[str, str], Kept] | None = None
        self._used: Counter[str] = Counter()

    def open(
        self,
        tenant: TenantId,
        parcel: str,
        machines: Sequence[str],
        *,
        from_machines: bool,
        max_bytes: int,
        keep: timedelta,
    ) -> None:
        """Announce a parcel; one that is there gets the machines and the later end besides.

        Raises INVALID for what cannot be, ALREADY_EXISTS for the other direction, LIMIT
        beyond what a tenant may fill.
        """
        check_id("tn", tenant)
        check_id("pc", parcel)
        for machine in machines:
            check_id("mc", machine)
        ends_at = self._now() + min(keep, LONGEST_KEEP)
        with self._gates.of(tenant, parcel):
            kept = self._kept(tenant, parcel)
            both = frozenset(machines)
            if kept is not None:
                known = kept.about
                if known.from_machines != from_machines:
                    raise SteadError("this parcel goes the other way", code=Code.ALREADY_EXISTS)
                both |= known.machines
                ends_at = max(ends_at, known.ends_at)
                max_bytes = max(max_bytes, known.max_bytes)
            if not machines or len(both) > MAX_MACHINES or keep <= timedelta(0):
                raise InvalidError(f"a parcel is for 1 to {MAX_MACHINES} machines, and for a while")
            about = About(both, from_machines, max_bytes, ends_at)
            if kept is None:
                self._begin(Kept(tenant, parcel, about))
            else:
                self._go_on(kept, about, machines)

    def held(self, tenant: TenantId, parcel: str, sender: str) -> list[bytes]:
        """BLAKE3 of the sealed pieces from the first on, up to the first that is missing."""
        kept = self._known(tenant, parcel)
        _check_sender(sender)
        with self._door:
            return kept.hashes(sender)

    def send(self, tenant: TenantId, parcel: str, sender: str, index: int, sealed: bytes) -> None:
        """Keep one piece, durably.

        Raises INVALID for no piece, DENIED for who may not send, LIMIT beyond what was
        announced or what a tenant may fill, `StoreFullError` before the disk is full.
        """
        kept = self._known(tenant, parcel)
        if not 0 < len(sealed) <= SEALED_PIECE_BYTES or not 0 <= index < MAX_PIECES:
            raise InvalidError(f"a piece has 1 to {SEALED_PIECE_BYTES} bytes")
        if kept.about.from_machines != (sender != OPERATOR):
            raise DeniedError("this parcel is sent by another")
        _check_takes_part(kept, sender)
        piece = Piece(sender, index, blake3(sealed).hexdigest(), len(sealed))
        with self._places.of(parcel, sender, str(index)):
            with self._door:
                before = kept.pieces.get((sender, index))
                if before == piece:
                    return
                self._check_limits(kept, piece, before)
                if before is not None:
                    self._forget(kept, before)
                self._count(kept, piece, 1)
            try:
                if before is not None:
                    self._store.delete(kept.piece_key(before))
                self._check_free(piece.size)
                self._store.put(kept.piece_key(piece), [sealed])
            except SteadError:
                with self._door:
                    self._count(kept, piece, -1)
                raise
            with self._door:
                if not kept.ended:
                    kept.pieces[sender, index] = piece
                    return
            # The parcel was removed meanwhile.
            self._store.delete(kept.piece_key(piece))
        raise _gone()

    def fetch(self, tenant: TenantId, parcel: str, sender: str, index: int, reader: str) -> bytes:
        """One sealed piece, for `reader`: a machine's id or OPERATOR; NOT_FOUND without it."""
        kept = self._known(tenant, parcel)
        _check_sender(sender)
        _check_takes_part(kept, reader)
        piece = kept.pieces.get((sender, index))
        if piece is not None:
            if (sealed := self._sound(kept, piece)) is not None:
                return sealed
            # The disk spoilt it: without it, whoever sends the file again sends this piece.
            with self._places.of(parcel, sender, str(index)):
                if kept.pieces.get((sender, index)) is piece:
                    self._store.delete(kept.piece_key(piece))
                    with self._door:
                        self._forget(kept, piece)
        raise NotFoundError(f"piece {index} of the file is not here; send the file again")

    def drop(self, tenant: TenantId, parcel: str, who: str) -> None:
        """A machine took it, and it goes with the last of them; an operator has it gone."""
        with self._gates.of(tenant, parcel):
            kept = self._kept(tenant, parcel)
            if kept is None:
                return
            _check_takes_part(kept, who)
            if who != OPERATOR:
                self._store.put(kept.taken_key(who), [b"taken"])
                kept.taken.add(who)
                if kept.about.from_machines or not kept.about.machines <= kept.taken:
                    return
            self._remove(kept)

    def sweep(self) -> int:
        """Remove the parcels whose time is over; how many."""
        with self._door:
            found = list(self._parcels())
        count = 0
        for tenant, parcel in found:
            with self._gates.of(tenant, parcel):
                kept = self._kept(tenant, parcel)
                if kept is not None and kept.about.ends_at <= self._now():
                    self._remove(kept)
                    count += 1
        return count

    def _begin(self, kept: Kept) -> None:
        with self._door:
            self._check_used(kept.tenant, kept.room_bytes)
            self._used[kept.tenant] += kept.room_bytes
        try:
            self._store.put(kept.about_key(), [msgspec.json.encode(kept.about)])
        except SteadError:
            with self._door:
                self._used[kept.tenant] -= kept.room_bytes
            raise
        with self._door:
            self._parcels()[kept.tenant, kept.parcel] = kept

    def _go_on(self, kept: Kept, about: About, machines: Sequence[str]) -> None:
        for machine in kept.taken.intersection(machines):
            self._store.delete(kept.taken_key(machine))
            kept.taken.discard(machine)
        if about == kept.about:
            return
        before = kept.about_key()
        kept.version += 1
        # First, so that it is never without.
        self._store.put(kept.about_key(), [msgspec.json.encode(about)])
        self._store.delete(before)
        kept.about = about

    def _check_limits(self, kept: Kept, piece: Piece, before: Piece | None) -> None:
        about, less = kept.about, before.size if before else 0
        sent = kept.sent_bytes[piece.sender] - less + piece.size
        # By its number, too: nobody sends a great many small ones.
        if sent > about.max_bytes or piece.index > pieces_in(about.max_bytes):
            raise SteadError("more was sent than the parcel was announced with", code=Code.LIMIT)
        self._check_used(kept.tenant, room_of(piece.size) - (room_of(less) if before else 0))

    def _check_used(self, tenant: str, more: int) -> None:
        if self._used[tenant] + more > self._tenant_bytes:
            raise SteadError(
                f"the tenant's files on their way fill {self._tenant_bytes} bytes, all that "
                "is kept for it; wait until machines took theirs, or send less at once",
                code=Code.LIMIT,
            )

    def _check_free(self, size: int) -> None:
        free = self._store.free_bytes()
        if free is not None and free < FREE_BYTES:
            raise StoreFullError("the controller's store", free_bytes=free, needed_bytes=size)

    def _forget(self, kept: Kept, piece: Piece) -> None:
        if kept.pieces.pop((piece.sender, piece.index), None) is not None:
            self._count(kept, piece, -1)

    def _count(self, kept: Kept, piece: Piece, sign: int) -> None:
        if not kept.ended:
            self._used[kept.tenant] += kept.count(piece, sign)

    def _remove(self, kept: Kept) -> None:
        with self._door:
            kept.ended = True
            del self._parcels()[kept.tenant, kept.parcel]
            self._used[kept.tenant] -= kept.room_bytes
            pieces = list(kept.pieces.values())
        keys = (*map(kept.piece_key, pieces), *map(kept.taken_key, kept.taken))
        # Each waits for the disk, which makes several durable at a time.
        for _ in abreast(self._store.delete, keys, most=_DELETES_AT_ONCE):
            pass
        # Last: a removal that is cut is done again when the time is over.
        self._store.delete(kept.about_key())

    def _sound(self, kept: Kept, piece: Piece) -> bytes | None:
        try:
            sealed = self._store.get(kept.piece_key(piece))
        except ObjectMissingError:
            return None
        return sealed if blake3(sealed).hexdigest() == piece.hash else None

    def _known(self, tenant: str, parcel: str) -> Kept:
        kept = self._kept(check_id("tn", tenant), check_id("pc", parcel))
        if kept is None or kept.about.ends_at <= self._now():
            raise _gone()
        return kept

    def _kept(self, tenant: str, parcel: str) -> Kept | None:
        with self._door:
            return self._parcels().get((tenant, parcel))

    def _parcels(self) -> dict[tuple[str, str], Kept]:
        """All of them; read from the store when they are first asked for."""
        if self._all is None:
            found = dict(self._found())
            self._used = Counter()
            for kept in found.values():
                self._used[kept.tenant] += kept.room_bytes
            self._all = found
        return self._all

    def _found(self) -> Iterator[tuple[tuple[str, str], Kept]]:
        by_parcel: dict[tuple[str, str], list[Name]] = defaultdict(list)
        for key, size in self._store.list(TOP):
            name = parse_name(key, size)
            if name is not None:
                by_parcel[name.tenant, name.parcel].append(name)
        for where, names in by_parcel.items():
            kept = self._assembled(names)
            if kept is not None:
                yield where, kept

    def _assembled(self, names: Sequence[Name]) -> Kept | None:
        """A parcel by its objects; removes those of earlier versions and of no parcel."""
        kept: Kept | None = None
        for name in sorted(names, key=_newest_first):
            if kept is None and name.version is not None:
                kept = self._announced(name)
                if kept is not None:
                    continue
            piece = name.piece
            if kept is None or name.version is not None:
                self._store.delete(name.key)
            elif name.taken is not None:
                kept.taken.add(name.taken)
            elif piece is not None:
                if (before := kept.pieces.get((piece.sender, piece.index))) is not None:
                    self._store.delete(kept.piece_key(before))
                    kept.count(before, -1)
                kept.pieces[piece.sender, piece.index] = piece
                kept.count(piece, 1)
        return kept

    def _announced(self, name: Name) -> Kept | None:
        try:
            about = msgspec.json.decode(self._store.get(name.key), type=About)
        except UNREADABLE:
            return None
        assert name.version is not None
        return Kept(name.tenant, name.parcel, about, name.version)


class _Locks:
    """So many locks that two who meet at one are rarely there for different things."""

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def of(self, *names: str) -> threading.Lock:
        """The one for what has these names."""
        return self._locks[hash(names) % _LOCKS]


def _newest_first(name: Name) -> int:
    return 1 if name.version is None else -name.version


def _gone() -> NotFoundError:
    return NotFoundError("the file on its way is gone: its time is over; send it again")


def _check_sender(sender: str) -> None:
    if sender != OPERATOR:
        check_id("mc", sender)


def _check_takes_part(kept: Kept, who: str) -> None:
    if who != OPERATOR and who not in kept.about.machines:
        raise NotFoundError("there is no such file on its way to or from this machine")
