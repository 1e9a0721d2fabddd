"""Parcels in memory, as an agent sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from protocol.errors import NotFoundError
from protocol.ids import ParcelId


@dataclass(slots=True)
class MemoryParcels:
    """`pieces` are the operator's, `sent` the machine's; `calls` are the numbers asked for."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    sent: dict[int, bytes] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    taken: int = 0

    def held(self, parcel: ParcelId) -> Sequence[bytes]:
        found: list[bytes] = []
        while (sealed := self.sent.get(len(found))) is not None:
            found.append(blake3(sealed).digest())
        return found

    def send(self, parcel: ParcelId, index: int, sealed: bytes) -> None:
        self.calls.append(index)
        self.sent[index] = sealed

    def fetch(self, parcel: ParcelId, index: int) -> bytes:
        self.calls.append(index)
        if index not in self.pieces:
            raise NotFoundError(f"piece {index} is not here")
        return self.pieces[index]

    def took(self, parcel: ParcelId) -> None:
        self.taken += 1
