"""The port through which packs, restore points and other objects are kept.

Every adapter passes `tests/contract/test_object_store.py`. Methods block; callers on
an event loop use `asyncio.to_thread`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from protocol.errors import Code, InvalidError, NotFoundError, SteadError

Piece = bytes | bytearray | memoryview

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\Z")
_LONGEST_KEY = 512
_LONGEST_PART = 200


class ObjectMissingError(NotFoundError):
    """No object has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the store has no object {key}; run `stead vault check`")


class StoreFullError(SteadError):
    """There is no room for the object; nothing of it was kept."""

    code = Code.STORE_FULL

    def __init__(self, where: str, *, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"{where} is full: {needed_bytes} bytes were to be written and {free_bytes} are "
            "free; make room: nothing is deleted by itself"
        )
        self.free_bytes = free_bytes
        self.needed_bytes = needed_bytes


class StoreFailedError(SteadError):
    """The disk or server behind the store failed; the object was not acknowledged."""

    code = Code.UNAVAILABLE


class ObjectStore(Protocol):
    """Immutable objects by key: written once, whole, and durable when acknowledged.

    Keys. ASCII parts of letters, digits, `.`, `_` and `-` with slashes between them,
    as in `tn_…/packs/ab/abcdef`; no part begins with a dot. At most 512 characters,
    200 a part. Anything else is refused with `InvalidError` before anything is done, and
    so is a key that begins with another key and a slash, or is such a beginning.

    Whole. A reader sees an object complete or not at all, whatever happens to the
    writer. An object never changes under its key.

    Durable. When `put` returns, True or False, the object survives a power cut. When
    it raises, the caller knows nothing but that this call promised nothing; putting
    again is always safe.

    Concurrent. Any number of threads may call any method at once. Of several puts of
    one key exactly one returns True. A `list` beside puts and deletes shows every
    object that was there all the time.

    Errors. `ObjectMissingError` for a key that is not there, `StoreFullError` when room
    is lacking, `StoreFailedError` for every other trouble of the disk or server.
    """

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        """Keep the pieces, one after the other, under a key that nobody used before.

        False when the key exists: what is there stays as it is, durable, and how much
        was read of `pieces` is undefined. An exception out of `pieces` leaves nothing.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes from `offset`, at most `length` of them, to the end when it is None.

        Fewer when the object ends earlier, none when `offset` is beyond its end.
        """

    def size(self, key: str) -> int:
        """The object's length in bytes."""

    def exists(self, key: str) -> bool:
        """Whether an object has this key."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and size of every object whose key begins with `prefix`, sorted by key.

        The prefix is a piece of text and may end anywhere inside a key.
        """

    def delete(self, key: str) -> bool:
        """Remove an object, for good once this returns; False when there was none."""

    def quarantine(self, key: str, reason: str) -> None:
        """Put a damaged object aside, with the reason, so that it is neither found nor lost.

        A sound object can then be put under the same key. Nothing that was put aside is
        ever overwritten. Raises `ObjectMissingError`.
        """

    def drop_cached(self, key: str) -> None:
        """Forget what memory holds of an object, so that it is next read from where it lies.

        For those who want to know whether it can still be read. Does nothing for a key that
        is not there, and where nothing is kept in memory.
        """

    def free_bytes(self) -> int | None:
        """How much may still be written; None where the store does not know."""


def check_key(key: str) -> str:
    """Return a key that is well formed; raise `InvalidError` otherwise.

    >>> check_key("tn_1/packs/ab/abcdef")
    'tn_1/packs/ab/abcdef'
    """
    if (
        len(key) > _LONGEST_KEY
        or not _KEY.match(key)
        or any(len(part) > _LONGEST_PART for part in key.split("/"))
    ):
        raise InvalidError(f"{key[:80]!r} cannot name an object")
    return key


def check_range(offset: int, length: int | None) -> None:
    """Raise `InvalidError` for a range that begins or ends before the object."""
    if offset < 0 or (length is not None and length < 0):
        raise InvalidError(f"no object has a range at {offset} of {length} bytes")
