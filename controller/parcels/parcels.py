"""Keep files on their way, sealed piece by piece, for a while and within bounds.

Everything is in the object store under `parcels/TENANT/PARCEL/`: what was announced, and each
piece under its sender, its number and its hash. So a restart loses nothing that was
acknowledged, and asking what is held reads no content.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from blake3 import blake3

from controller.store.store import ObjectMissingError, ObjectStore, StoreFullError
from protocol.errors import Code, DeniedError, InvalidError, NotFoundError, SteadError
from protocol.ids import MachineId, TenantId, check_id
from protocol.parcel import MAX_PIECES, OPERATOR, SEALED_PIECE_BYTES

TOP = "parcels/"
TENANT_BYTES = 16 * 1024 * 1024 * 1024
"""All of one tenant's parcels together."""

FREE_BYTES = 1024 * 1024 * 1024
"""Stay free for what is not thrown away again."""

LONGEST_KEEP = timedelta(days=40)
MAX_MACHINES = 20_000
_ABOUT = "about"
_TAKEN = "taken"


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator announced."""

    machines: frozenset[str]
    from_machines: bool
    max_bytes: int
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that is held."""

    index: int
    hash: str
    size: int
    key: str


class Parcels:
    """Every method blocks. `now` is the clock."""

    def __init__(
        self, store: ObjectStore, now: Callable[[], datetime], *, tenant_bytes: int = TENANT_BYTES
    ) -> None:
        self._store = store
        self._now = now
        self._tenant_bytes = tenant_bytes
        self._door = threading.Lock()
        self._used: dict[str, int] = {}

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

        Raises INVALID for what cannot be, ALREADY_EXISTS for the other direction.
        """
        folder = _folder(tenant, parcel)
        for machine in machines:
            check_id("mc", machine)
        if not 0 < len(machines) <= MAX_MACHINES or keep <= timedelta(0):
            raise InvalidError(f"a parcel is for 1 to {MAX_MACHINES} machines, and for a while")
        ends_at = self._now() + min(keep, LONGEST_KEEP)
        with self._door:
            known = self._about(folder)
            if known is not None and known.from_machines != from_machines:
                raise SteadError("this parcel goes the other way", code=Code.ALREADY_EXISTS)
            both = frozenset(machines)
            if known is not None:
                both |= known.machines
                ends_at = max(ends_at, known.ends_at)
                max_bytes = max(max_bytes, known.max_bytes)
            for machine in machines:
                self._store.delete(f"{folder}{_TAKEN}/{machine}")
            about = About(both, from_machines, max_bytes, ends_at)
            if about != known:
                self._store.delete(folder + _ABOUT)
                self._store.put(folder + _ABOUT, [msgspec.json.encode(about)])

    def held(self, tenant: TenantId, parcel: str, sender: str) -> list[bytes]:
        """BLAKE3 of the sealed pieces from the first on, up to the first that is missing."""
        folder = _folder(tenant, parcel)
        self._known(folder)
        by_index = {piece.index: piece for piece in self._pieces(folder, sender)}
        found: list[bytes] = []
        while (piece := by_index.get(len(found))) is not None:
            found.append(bytes.fromhex(piece.hash))
        return found

    def send(self, tenant: TenantId, parcel: str, sender: str, index: int, sealed: bytes) -> None:
        """Keep one piece, durably.

        Raises INVALID for no piece, DENIED for who may not send, LIMIT beyond what was
        announced or what a tenant may fill, `StoreFullError` before the disk is full.
        """
        folder = _folder(tenant, parcel)
        if not 0 < len(sealed) <= SEALED_PIECE_BYTES or index >= MAX_PIECES:
            raise InvalidError(f"a piece has 1 to {SEALED_PIECE_BYTES} bytes")
        about = self._known(folder)
        if about.from_machines != (sender != OPERATOR):
            raise DeniedError("this parcel is sent by another")
        _check_takes_part(about, sender)
        digest = blake3(sealed).hexdigest()
        key = f"{folder}{sender}/{index:07d}.{digest}"
        with self._door:
            before = list(self._pieces(folder, sender))
            if any(piece.key == key for piece in before):
                return
            replaced = [piece for piece in before if piece.index == index]
            others = sum(piece.size for piece in before if piece.index != index)
            used = self._used_by(tenant) - sum(piece.size for piece in replaced)
            if others + len(sealed) > about.max_bytes:
                raise SteadError(
                    "more was sent than the parcel was announced with", code=Code.LIMIT
                )
            if used + len(sealed) > self._tenant_bytes:
                raise SteadError(
                    f"the tenant's files on their way fill {self._tenant_bytes} bytes, all that "
                    "is kept for it; wait until machines took theirs, or send less at once",
                    code=Code.LIMIT,
                )
            free = self._store.free_bytes()
            if free is not None and free < FREE_BYTES:
                raise StoreFullError(
                    "the controller's store", free_bytes=free, needed_bytes=len(sealed)
                )
            for piece in replaced:
                self._store.delete(piece.key)
            self._used[tenant] = used
            self._store.put(key, [sealed])
            self._used[tenant] = used + len(sealed)

    def fetch(self, tenant: TenantId, parcel: str, sender: str, index: int, reader: str) -> bytes:
        """One sealed piece, for `reader`: a machine's id or OPERATOR; NOT_FOUND without it."""
        folder = _folder(tenant, parcel)
        about = self._known(folder)
        _check_takes_part(about, reader)
        prefix = f"{folder}{_sender(sender)}/{index:07d}."
        for key, _ in self._store.list(prefix):
            sealed = self._store.get(key)
            if key == prefix + blake3(sealed).hexdigest():
                return sealed
            # The disk spoilt it: without it, whoever sends the file again sends this piece.
            self._store.delete(key)
        raise NotFoundError(f"piece {index} of the file is not here; send the file again")

    def drop(self, tenant: TenantId, parcel: str, who: str) -> None:
        """A machine took it, and it goes with the last of them; an operator has it gone."""
        folder = _folder(tenant, parcel)
        with self._door:
            about = self._about(folder)
            if about is None:
                return
            _check_takes_part(about, who)
            if who != OPERATOR:
                self._store.put(f"{folder}{_TAKEN}/{who}", [b"taken"])
                prefix = f"{folder}{_TAKEN}/"
                taken = {key.removeprefix(prefix) for key, _ in self._store.list(prefix)}
                if about.from_machines or not about.machines <= taken:
                    return
            self._remove(tenant, folder)

    def sweep(self) -> int:
        """Remove the parcels whose time is over; how many."""
        folders = {"/".join(key.split("/")[:3]) for key, _ in self._store.list(TOP)}
        count = 0
        for folder in sorted(folders):
            with self._door:
                about = self._about(folder + "/")
                if about is None or about.ends_at <= self._now():
                    self._remove(folder.split("/")[1], folder + "/")
                    count += 1
        return count

    def _remove(self, tenant: str, folder: str) -> None:
        # What was announced goes last: a removal that is cut is done again by the next sweep.
        keys = [key for key, _ in self._store.list(folder)]
        for key in sorted(keys, key=lambda key: key.endswith(_ABOUT)):
            self._store.delete(key)
        self._used.pop(tenant, None)

    def _about(self, folder: str) -> About | None:
        try:
            return msgspec.json.decode(self._store.get(folder + _ABOUT), type=About)
        except (ObjectMissingError, msgspec.DecodeError):
            return None

    def _known(self, folder: str) -> About:
        about = self._about(folder)
        if about is None or about.ends_at <= self._now():
            raise NotFoundError("the file on its way is gone: its time is over; send it again")
        return about

    def _pieces(self, folder: str, sender: str) -> Iterator[Piece]:
        prefix = f"{folder}{_sender(sender)}/"
        for key, size in self._store.list(prefix):
            number, _, digest = key.removeprefix(prefix).partition(".")
            yield Piece(int(number), digest, size, key)

    def _used_by(self, tenant: str) -> int:
        if tenant not in self._used:
            found = self._store.list(f"{TOP}{tenant}/")
            self._used[tenant] = sum(size for key, size in found if "." in key)
        return self._used[tenant]


def _folder(tenant: str, parcel: str) -> str:
    return f"{TOP}{check_id('tn', tenant)}/{check_id('pc', parcel)}/"


def _sender(sender: str) -> str:
    return sender if sender == OPERATOR else MachineId(check_id("mc", sender))


def _check_takes_part(about: About, who: str) -> None:
    if who != OPERATOR and who not in about.machines:
        raise NotFoundError("there is no such file on its way to or from this machine")
