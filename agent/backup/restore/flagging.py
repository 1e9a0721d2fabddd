"""Set the flags of restored files at the very end, and take those away that are in the way."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from agent.backup.beneath import Beneath
from agent.backup.skipped import SkippedList, reason_of
from agent.metadata.system import SYSTEM
from protocol.vault.entry import Entry, Kind
from protocol.vault.path import join

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HAVE_FLAGS: Final = (Kind.FILE, Kind.DIRECTORY)


class Flagging:
    """Notes what gets flags; without `wanted` it says so instead."""

    def __init__(self, beneath: Beneath, warnings: SkippedList, *, wanted: bool) -> None:
        self._beneath = beneath
        self._warnings = warnings
        self._wanted = wanted
        self._noted: list[tuple[bytes, Entry]] = []

    def release(self, directory: int, name: bytes) -> None:
        """Let something be replaced, where it is a file or a directory that flags hold."""
        if not self._wanted:
            return
        with suppress(OSError):
            fd = os.open(name, _OPEN, dir_fd=directory)
            try:
                if os.fstat(fd).st_mode >> 12 in _HAVE_FLAGS:
                    self.release_open(fd)
            finally:
                os.close(fd)

    def release_open(self, fd: int) -> None:
        """The same of an open directory, so that its names can be changed."""
        if self._wanted:
            SYSTEM.release(fd)

    def note(self, parent: bytes, entry: Entry) -> None:
        """Something is restored that may have flags."""
        if not entry.extensions or not SYSTEM.has_flags(entry):
            return
        if self._wanted:
            self._noted.append((parent, entry))
        else:
            self._warnings.add(join(parent, entry.name), "its flags were not set; --flags does")

    def forget(self, parent: bytes, name: bytes) -> None:
        """Something that was noted is not there after all."""
        self._noted = [one for one in self._noted if (one[0], one[1].name) != (parent, name)]

    def finish(self) -> None:
        """Set them, the deepest last noted first: nothing else is changed after this."""
        for parent, entry in reversed(self._noted):
            try:
                directory = self._beneath.open(parent)
                try:
                    self._set(directory, entry)
                finally:
                    os.close(directory)
            except OSError as error:
                self._warnings.add(join(parent, entry.name), f"flags: {reason_of(error)}")
        self._noted.clear()

    @staticmethod
    def _set(directory: int, entry: Entry) -> None:
        fd = os.open(entry.name, _OPEN, dir_fd=directory)
        try:
            if os.fstat(fd).st_mode >> 12 == entry.mode >> 12:
                SYSTEM.give_flags(fd, entry)
        finally:
            os.close(fd)
