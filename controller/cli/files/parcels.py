"""Send a file to machines and fetch those that they sent, through a controller that reads none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TypeVar

import grpc
from blake3 import blake3

from controller.cli.operator.connection import Connection
from controller.cli.operator.tenant_keys import key_of_machine, unproved
from controller.cli.orders.following import PATIENCE
from protocol.abreast import abreast
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import MachineId, ParcelId, TenantId
from protocol.parcel import (
    AT_ONCE,
    OPERATOR,
    PIECE_BYTES,
    ParcelDamagedError,
    Trailer,
    open_piece,
    open_trailer,
    pieces_in,
    seal_key,
    seal_piece,
    seal_trailer,
    sealed_bytes,
)
from protocol.v1 import parcel_pb2 as pb
from protocol.v1.operator_pb2 import Machine
from protocol.vault.epochs import TenantKeys

CALL_S = 300.0
_PAUSE_S = 0.5
MOST_MACHINES = 7_000
"""An order of 1 MiB has no room for the sealed keys of more."""

PASSING = frozenset({Code.UNAVAILABLE, Code.INTERNAL})

T = TypeVar("T")
Tell = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Content:
    """What a local file holds: its bytes and their BLAKE3."""

    size: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Parcel:
    """A parcel of a tenant for its operator. A controller that goes away is waited for."""

    connection: Connection
    tenant: TenantId
    id: ParcelId

    def open(
        self, machines: Sequence[str], *, max_size: int, keep: timedelta, from_machines: bool
    ) -> None:
        """Announce it, for contents of at most `max_size` bytes."""
        request = pb.OpenParcelRequest(
            tenant_id=self.tenant,
            parcel_id=self.id,
            machine_ids=machines,
            from_machines=from_machines,
            max_bytes=sealed_bytes(max_size),
            keep_s=max(1, int(keep.total_seconds())),
        )
        self._patiently(lambda: self.connection.parcels.OpenParcel(request, timeout=CALL_S))

    def send(self, file: IO[bytes], content: Content, key: bytes, tell: Tell) -> None:
        """Send what the controller has not got of the file; INVALID when it has changed."""
        asked = pb.ListPiecesRequest(tenant_id=self.tenant, parcel_id=self.id)
        held = list(
            self._patiently(
                lambda: self.connection.parcels.ListPieces(asked, timeout=CALL_S)
            ).hashes
        )
        whole = blake3()

        def pieces() -> Iterator[tuple[int, bytes]]:
            left = content.size
            for index in range(pieces_in(content.size)):
                plain = file.read(min(PIECE_BYTES, left))
                whole.update(plain)
                left -= len(plain)
                yield index, plain

        def give(piece: tuple[int, bytes]) -> int:
            index, plain = piece
            self._give(index, seal_piece(key, self.id, OPERATOR, index, plain), held)
            return len(plain)

        done = 0
        for size in abreast(give, pieces(), most=AT_ONCE):
            done += size
            tell(done)
        if done != content.size or whole.digest() != content.hash:
            raise InvalidError("the file was written to while it was sent; send it again")
        trailer = Trailer(content.size, content.hash)
        sealed = seal_trailer(key, self.id, OPERATOR, trailer)
        self._give(pieces_in(content.size), sealed, held)

    def fetch(
        self,
        machine: MachineId,
        size: int,
        key: bytes,
        file: IO[bytes],
        tell: Tell,
        *,
        goes_on: bool = False,
    ) -> Trailer:
        """Write the content that a machine sent; `size` is what it said of it.

        `goes_on` keeps what the file has of it from an earlier run, and replaces it where
        that turns out to be something else. `ParcelDamagedError` when it is not what the
        machine sealed: what was written until then is of no use.
        """
        whole = blake3()
        done = begun = _kept_of(file, size, whole) if goes_on else 0

        def piece(index: int) -> bytes:
            return open_piece(key, self.id, machine, index, self._fetched(machine, index))

        count = pieces_in(size)
        for plain in abreast(piece, range(begun // PIECE_BYTES, count), most=AT_ONCE):
            whole.update(plain)
            file.write(plain)
            done += len(plain)
            tell(done)
        trailer = open_trailer(key, self.id, machine, count, self._fetched(machine, count))
        if (trailer.size, trailer.content_hash) == (done, whole.digest()):
            return trailer
        if begun:
            # A power cut may leave the length of what it did not leave the bytes of.
            file.truncate(0)
            return self.fetch(machine, size, key, file, tell, goes_on=True)
        raise ParcelDamagedError("what came is not the file that the machine read; get it again")

    def drop(self) -> None:
        """Have it removed; where that fails it ends by itself."""
        request = pb.DropParcelRequest(tenant_id=self.tenant, parcel_id=self.id)
        try:
            self.connection.parcels.DropParcel(request, timeout=CALL_S)
        except grpc.RpcError:
            return

    def _give(self, index: int, sealed: bytes, held: Sequence[bytes]) -> None:
        if index < len(held) and held[index] == blake3(sealed).digest():
            return
        request = pb.SendPieceRequest(
            tenant_id=self.tenant, parcel_id=self.id, index=index, sealed=sealed
        )
        self._patiently(lambda: self.connection.parcels.SendPiece(request, timeout=CALL_S))

    def _fetched(self, machine: MachineId, index: int) -> bytes:
        request = pb.FetchPieceRequest(
            tenant_id=self.tenant, parcel_id=self.id, sender_id=machine, index=index
        )
        return self._patiently(
            lambda: self.connection.parcels.FetchPiece(request, timeout=CALL_S)
        ).sealed

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Repeat a call that is safe to repeat while the controller is away, for `PATIENCE`.

        Raises `SteadError` for whatever else goes wrong, and in the end.
        """
        give_up = time.monotonic() + PATIENCE.total_seconds()
        while True:
            try:
                return ask()
            except grpc.RpcError as error:
                explained = self.connection.explain(error)
                if explained.code not in PASSING or time.monotonic() >= give_up:
                    raise explained from error
            time.sleep(_PAUSE_S)


def _kept_of(file: IO[bytes], size: int, whole: blake3) -> int:
    """How many bytes of whole pieces a file has, which are hashed; the rest is cut off."""
    done = 0
    file.seek(0)
    while size - done >= PIECE_BYTES and len(piece := file.read(PIECE_BYTES)) == PIECE_BYTES:
        whole.update(piece)
        done += PIECE_BYTES
    file.seek(done)
    file.truncate()
    return done


def content_of(path: Path, tell: Tell) -> Content:
    """Read a file through; INVALID when it cannot be."""
    whole = blake3()
    size = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                whole.update(piece)
                size += len(piece)
                tell(size)
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error.strerror}") from error
    return Content(size, whole.digest())


def sealed_to_all(
    machines: Sequence[Machine],
    tenant_keys: TenantKeys,
    keys: Mapping[str, bytes],
    *,
    tenant: TenantId,
    parcel: ParcelId,
) -> dict[str, bytes]:
    """Each machine's key, sealed to it, by the machine.

    Raises INVALID for more machines than one order has room for, and as `sealed_to`.
    """
    if len(machines) > MOST_MACHINES:
        raise InvalidError(
            f"{len(machines)} machines are meant, and one order carries the keys of "
            f"{MOST_MACHINES}: name fewer at once, such as those of one tag"
        )
    return {
        machine.machine_id: sealed_to(
            machine, tenant_keys, keys[machine.machine_id], tenant=tenant, parcel=parcel
        )
        for machine in machines
    }


def sealed_to(
    machine: Machine, keys: TenantKeys, key: bytes, *, tenant: TenantId, parcel: ParcelId
) -> bytes:
    """A parcel's key, sealed to a machine that has proved its own.

    Raises PRECONDITION for a machine that never held a link, BAD_SIGNATURE for one that
    proved nothing.
    """
    if not machine.sealing_key:
        raise SteadError(
            f"{machine.name} never held a link, so nothing can be sealed to it; start its agent",
            code=Code.PRECONDITION,
        )
    if key_of_machine(keys, machine) is None:
        raise unproved(machine)
    return seal_key(
        key,
        machine.sealing_key,
        tenant=tenant,
        machine=MachineId(machine.machine_id),
        parcel=parcel,
    )
