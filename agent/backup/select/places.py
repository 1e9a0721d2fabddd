"""Decide which places of the file system a backup visits.

Pure: paths come in as they were given, a tree of names goes out. Whether anything is
there is the walk's affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from blake3 import blake3

from protocol.errors import InvalidError


@dataclass(slots=True)
class Selection:
    """A place on the way to what is backed up. `whole`: everything below is wanted."""

    whole: bool = False
    children: dict[bytes, Selection] = field(default_factory=dict)


def normalise(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Absolute paths without their first slash, sorted, none inside another.

    Raises `InvalidError` for a path that is relative or holds NUL.

    >>> normalise([b"/etc/", b"/etc/ssh", b"//home/./ann/../bob"])
    (b'etc', b'home/bob')
    """
    found: set[tuple[bytes, ...]] = set()
    for path in paths:
        if not path.startswith(b"/") or b"\0" in path:
            raise InvalidError(f"{path[:200]!r} cannot be backed up: give an absolute path")
        names: list[bytes] = []
        for name in path.split(b"/"):
            if name == b"..":
                del names[-1:]
            elif name not in (b"", b"."):
                names.append(name)
        found.add(tuple(names))
    kept: list[tuple[bytes, ...]] = []
    for names_of in sorted(found):
        if not kept or names_of[: len(kept[-1])] != kept[-1]:
            kept.append(names_of)
    return tuple(b"/".join(names) for names in kept)


def select(paths: Iterable[bytes]) -> Selection:
    """The tree of names of normalised paths."""
    top = Selection()
    for path in paths:
        place = top
        for name in path.split(b"/") if path else ():
            place = place.children.setdefault(name, Selection())
        place.whole = True
    return top


def rules_hash(paths: Iterable[bytes], scope: bytes) -> bytes:
    """32 bytes that change when a backup would look at other things or seal differently.

    `scope` stands for the keys in use; it should be a hash of them.
    """
    state = blake3(scope, derive_key_context="stead backup rules v1")
    for path in paths:
        state.update(len(path).to_bytes(4, "little") + path)
    return state.digest()
