"""What two machines must agree on about inventories: names of sections, and hashes.

Pure. A manifest maps a section's name to the BLAKE3 hash of its body (32 bytes); the
root is one hash over all of them, so that equal roots mean equal inventories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from blake3 import blake3

from protocol.errors import InvalidError

HASH_BYTES = 32
MAX_SECTIONS = 256
MAX_BODY_BYTES = 4 * 1024 * 1024

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}\Z")


def check_section_name(name: str) -> str:
    """Return a name that a section can have, raise INVALID otherwise.

    >>> check_section_name("packages")
    'packages'
    """
    if not _NAME.match(name):
        raise InvalidError(
            f"{name[:80]!r} cannot name a section: use 1 to 48 lower-case letters, digits and "
            "underscores, beginning with a letter"
        )
    return name


def body_hash(body: bytes) -> bytes:
    """The hash that names a section's body: BLAKE3, 32 bytes."""
    return blake3(body).digest()


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
