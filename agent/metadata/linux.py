"""What Linux knows of a file: extended attributes, ACLs among them, and flags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from agent.metadata.attributes import xattrs_at, xattrs_of
from agent.metadata.extras import NOTHING, Extras
from agent.metadata.posix_flags import HOLDING, extension_of, flags_of, read_flags, write_flags
from agent.metadata.unsettable import LINUX, has_place
from protocol.vault.entry import Entry


class Linux:
    """Asks and tells Linux."""

    name: Final = LINUX

    def is_away(self, _: os.stat_result) -> bool:
        """Never: there is no such mark."""
        return False

    def of_open(self, fd: int) -> Extras:
        """Raises `AttributeTooLargeError` besides."""
        xattrs, flags = xattrs_of(fd), read_flags(fd)
        return Extras(xattrs, extension_of(flags)) if xattrs or flags else NOTHING

    def at(self, directory_fd: int, name: bytes) -> Extras:
        """Only files and directories have flags here."""
        xattrs = xattrs_at(directory_fd, name)
        return Extras(xattrs) if xattrs else NOTHING

    def give(self, fd: int, entry: Entry) -> Iterator[str]:
        """Attributes, the ACL among them."""
        return _give(fd, entry, follow=True)

    def give_at(self, directory_fd: int, name: bytes, entry: Entry) -> Iterator[str]:
        """The same, and a symbolic link is not followed."""
        return _give(b"/proc/self/fd/%d/%s" % (directory_fd, name), entry, follow=False)

    def has_flags(self, entry: Entry) -> bool:
        """Those that Linux gave them."""
        return flags_of(entry) != 0

    def give_flags(self, fd: int, entry: Entry) -> None:
        """Others that it has stay."""
        write_flags(fd, flags_of(entry))

    def release(self, fd: int) -> None:
        """Immutable and append only."""
        flags = read_flags(fd)
        if flags & HOLDING:
            write_flags(fd, flags & ~HOLDING)


def _give(where: int | bytes, entry: Entry, *, follow: bool) -> Iterator[str]:
    for name, value in entry.xattrs:
        if not has_place(name, LINUX):
            continue
        try:
            os.setxattr(where, name, value, follow_symlinks=follow)
        except OSError as error:
            shown = name.decode(errors="backslashreplace")
            yield f"attribute {shown}: {(error.strerror or str(error)).lower()}"
