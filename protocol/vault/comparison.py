"""What a machine says when it compares a restore point with itself, sealed page by page.

The order tells the machine, and nobody else, to which key to answer. So whoever carries
the answer can neither read it nor make another, leave out a page, or put one elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
import zstandard
from msgspec import Meta

from protocol.errors import InvalidError
from protocol.vault.entry import Entry, Owner
from protocol.vault.keys import KEY_BYTES
from protocol.vault.seal import PrivateKey, PublicKey, binding, open_sealed, seal_to

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Of a page before it is compressed."""

Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class Terms(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """`paths`: what the restore point was made of. `answer_to`: an X25519 public key, used once."""

    paths: tuple[bytes, ...]
    answer_to: Key


class Side(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What is told of one of two entries."""

    mode: Annotated[int, Meta(ge=0, le=0xFFFF)]
    uid: int
    gid: int
    user: str
    group: str
    mtime_ns: int
    size: Annotated[int, Meta(ge=0)]
    target: bytes


class Difference(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What is otherwise at one path, and in which ways; see `differences`."""

    parent: bytes
    name: bytes
    what: tuple[str, ...]
    old: Side | None
    new: Side | None


class Page(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A part of the answer. `skipped`: what could not be looked at, with the reason."""

    differences: tuple[Difference, ...]
    skipped: tuple[tuple[bytes, str], ...]
    is_last: bool


_encode = msgspec.msgpack.Encoder().encode


def side_of(entry: Entry | None) -> Side | None:
    """An entry as it is told."""
    if entry is None:
        return None
    owner = entry.owner
    return Side(
        entry.mode,
        owner.uid,
        owner.gid,
        owner.user,
        owner.group,
        entry.mtime_ns,
        entry.size,
        entry.target,
    )


def entry_of(name: bytes, side: Side | None) -> Entry | None:
    """The entry that was told, without what was not."""
    if side is None:
        return None
    owner = Owner(side.uid, side.gid, side.user, side.group)
    return Entry(name, side.mode, owner, side.mtime_ns, side.size, target=side.target)


def seal_terms(
    terms: Terms, recipient: PublicKey | bytes, *, tenant: str, machine: str, point: str
) -> bytes:
    """Seal the terms to the machine that shall compare."""
    return seal_to(recipient, _encode(terms), binding("comparison", tenant, machine, point))


def open_terms(
    recipient: PrivateKey, sealed: bytes, *, tenant: str, machine: str, point: str
) -> Terms:
    """Undo `seal_terms`; `SealedError` when they were meant for another, INVALID for no terms."""
    plain = open_sealed(recipient, sealed, binding("comparison", tenant, machine, point))
    try:
        return msgspec.msgpack.decode(plain, type=Terms)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"the terms of a comparison cannot be read: {error}") from error


def seal_page(page: Page, number: int, terms: Terms, *, machine: str, point: str) -> bytes:
    """Seal a page, compressed; pages are numbered from 0."""
    packed = zstandard.ZstdCompressor(level=3).compress(_encode(page))
    return seal_to(terms.answer_to, packed, _place(number, machine, point))


def open_pages(
    recipient: PrivateKey, sealed: Sequence[bytes], *, machine: str, point: str
) -> Iterator[Page]:
    """The whole answer, a page at a time. `SealedError` for pages that are another's or
    elsewhere, INVALID for what is no page, and before the first when the last is missing.
    """

    def opened(number: int) -> Page:
        packed = open_sealed(recipient, sealed[number], _place(number, machine, point))
        try:
            # A frame that announces its size is unpacked to it, whatever `max_output_size` says.
            if zstandard.get_frame_parameters(packed).content_size > MAX_PAGE_BYTES:
                raise InvalidError("a page of a comparison is larger than any machine makes one")
            plain = zstandard.ZstdDecompressor(max_window_size=MAX_PAGE_BYTES).decompress(
                packed, max_output_size=MAX_PAGE_BYTES
            )
            return msgspec.msgpack.decode(plain, type=Page)
        except (ValueError, RecursionError, zstandard.ZstdError) as error:
            raise InvalidError(f"a page of a comparison cannot be read: {error}") from error

    if not sealed or not opened(len(sealed) - 1).is_last:
        raise InvalidError("a part of the answer is missing; compare again")
    for number in range(len(sealed)):
        yield opened(number)


def _place(number: int, machine: str, point: str) -> bytes:
    return binding("difference", machine, point, str(number))
