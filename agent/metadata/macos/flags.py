"""The flags that macOS keeps in `st_flags`: immutable, hidden, and their like. Pure.

An entry has those that a restore can set again as an extension: 4 bytes, little endian,
with the bits of `sys/stat.h`.
"""

from __future__ import annotations

from typing import Final

from agent.metadata.extras import Extensions
from protocol.vault.entry import Entry

NAME: Final = "macos.flags"
NO_DUMP: Final = 0x1
IMMUTABLE: Final = 0x2
APPEND_ONLY: Final = 0x4
OPAQUE: Final = 0x8
COMPRESSED: Final = 0x20
HIDDEN: Final = 0x8000
ARCHIVED: Final = 0x1_0000
SYSTEM_IMMUTABLE: Final = 0x2_0000
SYSTEM_APPEND_ONLY: Final = 0x4_0000
DATALESS: Final = 0x4000_0000

OF_OWNER: Final = NO_DUMP | IMMUTABLE | APPEND_ONLY | OPAQUE | HIDDEN
"""What the owner of a file may set."""
OF_SYSTEM: Final = ARCHIVED | SYSTEM_IMMUTABLE | SYSTEM_APPEND_ONLY
"""What root alone may set."""
KEPT: Final = OF_OWNER | OF_SYSTEM
HOLDING: Final = IMMUTABLE | APPEND_ONLY | SYSTEM_IMMUTABLE | SYSTEM_APPEND_ONLY
"""Those that keep what has them from being changed or replaced."""

_BYTES: Final = 4


def extension_of(st_flags: int) -> Extensions:
    """What an entry needs to say so; nothing for nearly every file.

    >>> extension_of(HIDDEN | COMPRESSED)
    (('macos.flags', b'\\x00\\x80\\x00\\x00'),)
    """
    flags = st_flags & KEPT
    return ((NAME, flags.to_bytes(_BYTES, "little")),) if flags else ()


def flags_of(entry: Entry) -> int:
    """The flags of an entry; what is not known here, or is no flags at all, counts for none."""
    value = dict(entry.extensions).get(NAME, b"")
    return int.from_bytes(value, "little") & KEPT if len(value) == _BYTES else 0


def settable(found: int, wanted: int, *, is_root: bool) -> int:
    """The flags to set where `found` are set: what is not kept stays as it is.

    >>> hex(settable(COMPRESSED | HIDDEN, SYSTEM_IMMUTABLE | NO_DUMP, is_root=False))
    '0x21'
    """
    ours = KEPT if is_root else OF_OWNER
    return found & ~ours | wanted & ours


def is_away(st_flags: int) -> bool:
    """Whether reading the file would fetch it from a cloud."""
    return bool(st_flags & DATALESS)
