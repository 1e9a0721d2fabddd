"""What changed between two inventories, seen by the hashes of their sections.

Pure. A manifest maps a section's name to the BLAKE3 hash of its body (32 bytes); the
root is one hash over all of them, so that equal roots mean equal inventories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blake3 import blake3

from protocol.errors import InvalidError

HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of sections, sorted: what is new, what has another body, what is gone."""

    added: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def to_send(self) -> tuple[str, ...]:
        """The sections whose bodies the other side has not got."""
        return tuple(sorted(self.added + self.altered))

    def __bool__(self) -> bool:
        return bool(self.added or self.altered or self.removed)


def root_of(manifest: Mapping[str, bytes]) -> bytes:
    """BLAKE3 (32 bytes) over each name in UTF-8, a NUL and the hash, sorted by name.

    Raises `InvalidError` for a name with a NUL and for a hash of another length, since
    with these two manifests could share a root.
    """
    hasher = blake3()
    for name, digest in sorted(manifest.items()):
        if "\0" in name or len(digest) != HASH_BYTES:
            raise InvalidError(f"section {name[:80]!r} needs a plain name and {HASH_BYTES} bytes")
        hasher.update(name.encode() + b"\0" + digest)
    return hasher.digest()


def changed(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> Changes:
    """What the `new` manifest has that differs from the `old` one.

    >>> changed({"cpu": b"1", "ports": b"1"}, {"cpu": b"2", "users": b"1"})
    Changes(added=('users',), altered=('cpu',), removed=('ports',))
    """
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        altered=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )
