"""Keep, durably, on which file systems watching was found wanting.

Whoever orders a new backup set after that has it tried again.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from agent.host import clock
from agent.host.files import read_if_there, write_atomically
from protocol.errors import UNREADABLE, InvalidError


class SwitchedOff(msgspec.Struct, frozen=True):
    """One note of the file `watch.off`: where, and which file had changed without an event.

    `volume` is a mount point without its first slash.
    """

    at: clock.Moment
    volume: bytes
    path: bytes


_decode = msgspec.msgpack.Decoder(tuple[SwitchedOff, ...]).decode


def load_off(path: Path) -> tuple[SwitchedOff, ...]:
    """All notes. Raises `InvalidError` when they cannot be read: nothing is watched then."""
    data = read_if_there(path)
    try:
        return () if data is None else _decode(data)
    except UNREADABLE as error:
        raise InvalidError(
            f"{path} is damaged: {error}; remove it to have everything watched again"
        ) from error


def off_since(notes: tuple[SwitchedOff, ...], set_at: datetime) -> frozenset[bytes]:
    """The volumes that were found wanting after the backup set was ordered."""
    return frozenset(note.volume for note in notes if note.at >= set_at)


def switch_off(path: Path, note: SwitchedOff) -> None:
    """Watch this volume no more. Raises STORE_FULL."""
    try:
        others = [one for one in load_off(path) if one.volume != note.volume]
    except InvalidError:
        others = []
    write_atomically(path, msgspec.msgpack.encode((*others, note)))
