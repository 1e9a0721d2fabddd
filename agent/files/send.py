"""Read one file into a parcel, sending only the pieces that the controller has not got."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from blake3 import blake3

from agent.files.parcels import Parcels
from agent.files.way import Spot, open_regular
from protocol.abreast import abreast
from protocol.errors import Code, SteadError
from protocol.ids import ParcelId
from protocol.parcel import AT_ONCE, PIECE_BYTES, Trailer, pieces_in, seal_piece, seal_trailer


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent. `changed`: the file was written to meanwhile."""

    trailer: Trailer
    sent_bytes: int
    changed: bool


@contextmanager
def opened(spot: Spot, max_bytes: int) -> Iterator[int]:
    """A regular file, open for reading.

    Raises NOT_FOUND, INVALID for what is no regular file, LIMIT for one that is too large.
    """
    fd = open_regular(spot)
    try:
        _check_size(os.fstat(fd).st_size, max_bytes, spot)
        yield fd
    finally:
        os.close(fd)


def send_file(
    spot: Spot,
    fd: int,
    key: bytes,
    parcel: ParcelId,
    sender: str,
    parcels: Parcels,
    *,
    max_bytes: int,
    wait: Callable[[int], None],
    told: Callable[[int, int], None],
) -> Sent:
    """Send an open file. `told` hears how many of how many bytes are done.

    What grows while it is read is sent as far as it went at the beginning. A file of
    /proc, which has no size, is read to its end.
    """
    begun = os.fstat(fd)
    held = parcels.held(parcel)
    whole = blake3()

    def give(piece: tuple[int, bytes]) -> tuple[int, int]:
        index, plain = piece
        sealed = seal_piece(key, parcel, sender, index, plain)
        return len(plain), _give(index, sealed, held, parcels, parcel, wait)

    def pieces() -> Iterator[tuple[int, bytes]]:
        for index, plain in enumerate(_pieces(fd, begun.st_size, max_bytes, spot)):
            whole.update(plain)
            yield index, plain

    size = sent = 0
    for taken, given in abreast(give, pieces(), most=AT_ONCE):
        size, sent = size + taken, sent + given
        told(size, begun.st_size)
    ended = os.fstat(fd)
    trailer = Trailer(
        size,
        whole.digest(),
        stat.S_IMODE(begun.st_mode),
        begun.st_mtime_ns,
        _name(lambda: pwd.getpwuid(begun.st_uid).pw_name, begun.st_uid),
        _name(lambda: grp.getgrgid(begun.st_gid).gr_name, begun.st_gid),
    )
    sealed = seal_trailer(key, parcel, sender, trailer)
    sent += _give(pieces_in(size), sealed, held, parcels, parcel, wait)
    changed = (begun.st_size, begun.st_mtime_ns, begun.st_ctime_ns) != (
        ended.st_size,
        ended.st_mtime_ns,
        ended.st_ctime_ns,
    )
    return Sent(trailer, sent, changed)


def _give(
    index: int,
    sealed: bytes,
    held: Sequence[bytes],
    parcels: Parcels,
    parcel: ParcelId,
    wait: Callable[[int], None],
) -> int:
    if index < len(held) and held[index] == blake3(sealed).digest():
        return 0
    wait(len(sealed))
    parcels.send(parcel, index, sealed)
    return len(sealed)


def _pieces(fd: int, begun_size: int, max_bytes: int, spot: Spot) -> Iterator[bytes]:
    size = 0
    while True:
        most = PIECE_BYTES if not begun_size else min(PIECE_BYTES, begun_size - size)
        plain = _read(fd, most, spot)
        if not plain:
            return
        size += len(plain)
        _check_size(size, max_bytes, spot)
        yield plain
        if len(plain) < PIECE_BYTES:
            return


def _read(fd: int, most: int, spot: Spot) -> bytes:
    """As much as is there, up to `most`: one read of /proc gives a page."""
    pieces: list[bytes] = []
    left = most
    try:
        while left and (piece := os.read(fd, left)):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise SteadError(f"{spot.shown}: {error.strerror}", code=Code.PRECONDITION) from error
    return b"".join(pieces)


def _check_size(size: int, max_bytes: int, spot: Spot) -> None:
    if size > max_bytes:
        raise SteadError(
            f"{spot.shown} has more than the {max_bytes} bytes that the order allows; raise "
            "--max-size",
            code=Code.LIMIT,
        )


def _name(find: Callable[[], str], number: int) -> str:
    try:
        return find().encode(errors="surrogateescape").decode(errors="backslashreplace")
    except KeyError:
        return str(number)
