"""What Linux knows of a file: extended attributes, ACLs among them, and flags.

Named streams it knows on volumes of NTFS alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from agent.metadata import ntfs
from agent.metadata.attributes import NO_ATTRIBUTES, xattrs_at, xattrs_of
from agent.metadata.extras import NOTHING, Extras
from agent.metadata.named import MAKE, READ, Fill, Listing, Write, reading, writing
from agent.metadata.posix_flags import HOLDING, extension_of, flags_of, read_flags, write_flags
from agent.metadata.unsettable import LINUX, has_place
from agent.metadata.windows.streams import problem_of
from protocol.vault.entry import Entry


class Linux:
    """Asks and tells Linux."""

    name: Final = LINUX

    def __init__(self) -> None:
        # Devices of volumes that have no streams: a volume answers for all that is on it.
        self._without: set[int] = set()

    def is_away(self, _: os.stat_result) -> bool:
        """Never: there is no such mark."""
        return False

    def of_open(self, fd: int) -> Extras:
        """Attributes and flags."""
        found, flags = xattrs_of(fd), read_flags(fd)
        if found is NO_ATTRIBUTES and not flags:
            return NOTHING
        return Extras(found.xattrs, extension_of(flags), left_out=found.left_out)

    def at(self, directory_fd: int, name: bytes) -> Extras:
        """Only files and directories have flags here."""
        found = xattrs_at(directory_fd, name)
        if found is NO_ATTRIBUTES:
            return NOTHING
        return Extras(found.xattrs, left_out=found.left_out)

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

    def streams(self, directory_fd: int, name: bytes, found: os.stat_result) -> Listing | None:
        """Looked for once on each volume, and again on those that have a place for them."""
        if found.st_dev in self._without:
            return None
        try:
            listing = ntfs.listing(directory_fd, name)
        except PermissionError:
            # What may not be read has nothing to tell; another thing may say more.
            return None
        if listing is None:
            self._without.add(found.st_dev)
        return listing

    def takes_stream(self, stream: bytes) -> bool:
        """As Windows does."""
        return problem_of(stream) is None

    def read_stream(
        self, directory_fd: int, name: bytes, stream: bytes
    ) -> AbstractContextManager[Fill]:
        """By the path of the stream."""
        return reading(os.open(ntfs.path_of(name, stream), READ, dir_fd=directory_fd))

    def write_stream(
        self, directory_fd: int, name: bytes, stream: bytes
    ) -> AbstractContextManager[Write]:
        """By the path of the stream."""
        return writing(os.open(ntfs.path_of(name, stream), MAKE, 0o600, dir_fd=directory_fd))

    def remove_stream(self, directory_fd: int, name: bytes, stream: bytes) -> None:
        """By the path of the stream."""
        os.unlink(ntfs.path_of(name, stream), dir_fd=directory_fd)


def _give(where: int | bytes, entry: Entry, *, follow: bool) -> Iterator[str]:
    for name, value in entry.xattrs:
        if not has_place(name, LINUX):
            continue
        try:
            os.setxattr(where, name, value, follow_symlinks=follow)
        except OSError as error:
            shown = name.decode(errors="backslashreplace")
            yield f"attribute {shown}: {(error.strerror or str(error)).lower()}"
