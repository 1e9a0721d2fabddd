"""What of an entry another system made, and this one has no place for. Pure."""

from __future__ import annotations

from typing import Final

from protocol.vault.entry import Entry

LINUX: Final = "Linux"
MACOS: Final = "macOS"
WINDOWS: Final = "Windows"

UNKNOWN: Final = "unknown extensions"
_LONGEST: Final = 40
_SPACES: Final = (b"user.", b"system.", b"security.", b"trusted.")
_OWN: Final = {"windows": WINDOWS, "macos": MACOS}
_FLAGS_OF_LINUX: Final = "posix.flags"
_TIME: Final = "posix.mtime"


def has_place(name: bytes, system: str) -> bool:
    """Whether a system can have an extended attribute of this name at all.

    >>> has_place(b"com.apple.quarantine", LINUX), has_place(b"user.note", LINUX)
    (False, True)
    """
    if b"\0" in name:
        return False
    if system == LINUX:
        return name.startswith(_SPACES)
    return system == MACOS


def unsettable(entry: Entry, system: str) -> tuple[str, ...]:
    """Kinds of what cannot be set, in words, some more than once; none for nearly every entry.

    Of named streams the volume says, and not the system alone.

    >>> from protocol.vault.entry import Owner
    >>> made = Entry(b"x", 0o100644, Owner(0, 0), 0, extensions=(("macos.acl", b""),))
    >>> unsettable(made, LINUX), unsettable(made, MACOS)
    (('macos.acl',), ())
    """
    kinds = [_shown(name) for name, _ in entry.extensions if not _is_settable(name, system)]
    if any(not has_place(name, system) for name, _ in entry.xattrs):
        kinds.append("attributes")
    if entry.born_ns is not None and system == LINUX:
        kinds.append("time of creation")
    return tuple(kinds)


def _shown(name: str) -> str:
    """A name as it can be told: a tree may be hostile."""
    return name if name.isprintable() and len(name) <= _LONGEST else UNKNOWN


def _is_settable(name: str, system: str) -> bool:
    if name == _TIME:
        return True
    if name == _FLAGS_OF_LINUX:
        return system == LINUX
    return _OWN.get(name.partition(".")[0]) == system
