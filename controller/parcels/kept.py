"""What is held of a parcel, and the names of its objects. Pure.

All objects of a tenant's parcels lie side by side under `parcels/TENANT/`, so that none
leaves a directory behind: `PARCEL.about.N` is what was announced, the highest N counts;
`PARCEL.SENDER.NUMBER.HASH` is a piece; `PARCEL.taken.MACHINE` says who needs it no more.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from protocol.ids import check_id

TOP: Final = "parcels/"
LEAST_BYTES: Final = 64 * 1024
"""Each object counts as so much at least: it also takes memory, and a file of its own."""

_ID: Final = "[0-9a-z]{26}"
_NAME: Final = re.compile(
    rf"{TOP}(tn_{_ID})/(pc_{_ID})\."
    rf"(?:about\.(?P<version>\d{{9}})|taken\.(?P<taken>mc_{_ID})"
    rf"|(?P<sender>operator|mc_{_ID})\.(?P<index>\d{{7}})\.(?P<hash>[0-9a-f]{{64}}))\Z"
)


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator announced."""

    machines: frozenset[str]
    from_machines: bool
    max_bytes: int
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that is held. `hash` is the BLAKE3 of its sealed bytes."""

    sender: str
    index: int
    hash: str
    size: int


@dataclass(frozen=True, slots=True)
class Name:
    """What the name of an object says: of the three last one is not None."""

    key: str
    tenant: str
    parcel: str
    version: int | None
    taken: str | None
    piece: Piece | None


@dataclass(slots=True)
class Kept:
    """One parcel. `version` is that of what was announced; `ended` once it is being removed.

    `sent_bytes` by sender and `room_bytes` count what is being written, too.
    """

    tenant: str
    parcel: str
    about: About
    version: int = 0
    pieces: dict[tuple[str, int], Piece] = field(default_factory=dict)
    sent_bytes: Counter[str] = field(default_factory=Counter)
    room_bytes: int = LEAST_BYTES
    taken: set[str] = field(default_factory=set)
    ended: bool = False

    def count(self, piece: Piece, sign: int) -> int:
        """Count a piece (1), or count it no more (-1); by how much that is more room."""
        room = sign * room_of(piece.size)
        self.sent_bytes[piece.sender] += sign * piece.size
        self.room_bytes += room
        return room

    def about_key(self) -> str:
        """Of what was announced last."""
        return f"{self._beginning}about.{self.version:09d}"

    def taken_key(self, machine: str) -> str:
        """Of the note that a machine needs it no more."""
        return f"{self._beginning}taken.{machine}"

    def piece_key(self, piece: Piece) -> str:
        """Of a piece."""
        return f"{self._beginning}{piece.sender}.{piece.index:07d}.{piece.hash}"

    def hashes(self, sender: str) -> list[bytes]:
        """Those of the pieces from the first on, up to the first that is missing."""
        found: list[bytes] = []
        while (piece := self.pieces.get((sender, len(found)))) is not None:
            found.append(bytes.fromhex(piece.hash))
        return found

    @property
    def _beginning(self) -> str:
        return f"{TOP}{check_id('tn', self.tenant)}/{check_id('pc', self.parcel)}."


def room_of(size: int) -> int:
    """What an object counts as.

    >>> room_of(1), room_of(100_000)
    (65536, 100000)
    """
    return max(size, LEAST_BYTES)


def parse_name(key: str, size: int) -> Name | None:
    """What an object is; None for a name that is none of ours."""
    found = _NAME.match(key)
    if found is None:
        return None
    version = None if found["version"] is None else int(found["version"])
    piece = None
    if found["sender"] is not None:
        piece = Piece(found["sender"], int(found["index"]), found["hash"], size)
    return Name(key, found[1], found[2], version, found["taken"], piece)
