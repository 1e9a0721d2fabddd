"""Parcels over gRPC, as this machine: the one module of files that touches the wire."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import grpc

from agent.backup.send.upload import patiently
from agent.backup.send.wire import explain
from protocol.errors import UnavailableError
from protocol.ids import ParcelId
from protocol.v1 import parcel_pb2 as pb
from protocol.v1.parcel_pb2_grpc import ParcelServiceStub

CALL_S = 300.0
"""For one piece over a slow line."""

PATIENCE_S = 600.0

T = TypeVar("T")


class Parcels(Protocol):
    """What the controller keeps for this machine. Every method is safe to repeat."""

    def held(self, parcel: ParcelId) -> Sequence[bytes]:
        """BLAKE3 of the sealed pieces that this machine sent, from the first on."""

    def send(self, parcel: ParcelId, index: int, sealed: bytes) -> None:
        """Have a piece kept."""

    def fetch(self, parcel: ParcelId, index: int) -> bytes:
        """A piece that the operator sent; NOT_FOUND when it is not there."""

    def took(self, parcel: ParcelId) -> None:
        """Say that this machine needs the parcel no more."""


class GrpcParcels:
    """Parcels behind a channel that shows this machine's certificate.

    A link that is lost is waited for. `UnavailableError` when it stays away.
    """

    def __init__(self, channel: grpc.Channel, seed: random.Random) -> None:
        self._stub = ParcelServiceStub(channel)
        self._seed = seed

    def held(self, parcel: ParcelId) -> Sequence[bytes]:
        """See `Parcels`."""
        request = pb.ListPiecesRequest(parcel_id=parcel)
        return self._call(lambda: list(self._stub.ListPieces(request, timeout=CALL_S).hashes))

    def send(self, parcel: ParcelId, index: int, sealed: bytes) -> None:
        """See `Parcels`."""
        request = pb.SendPieceRequest(parcel_id=parcel, index=index, sealed=sealed)
        self._call(lambda: self._stub.SendPiece(request, timeout=CALL_S))

    def fetch(self, parcel: ParcelId, index: int) -> bytes:
        """See `Parcels`."""
        request = pb.FetchPieceRequest(parcel_id=parcel, index=index)
        return self._call(lambda: self._stub.FetchPiece(request, timeout=CALL_S).sealed)

    def took(self, parcel: ParcelId) -> None:
        """See `Parcels`."""
        request = pb.DropParcelRequest(parcel_id=parcel)
        self._call(lambda: self._stub.DropParcel(request, timeout=CALL_S))

    def _call(self, ask: Callable[[], T]) -> T:
        def asked() -> T:
            try:
                return ask()
            except grpc.RpcError as error:
                raise explain(error) from error

        try:
            return patiently(asked, self._seed, patience_s=PATIENCE_S)
        except UnavailableError as error:
            raise UnavailableError(
                f"the controller was away for {PATIENCE_S:.0f} s; what it has of the file is "
                "kept for a while: order it again"
            ) from error
