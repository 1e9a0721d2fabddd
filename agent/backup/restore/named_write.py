"""Give restored files and folders their named streams.

A volume that has no place for them is told of once, with the count; what is lost or cannot
be written is a failure of its own beside the file, which is there all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from agent.backup.send.vault import DATA_LOSS
from agent.backup.skipped import FULL, SkippedList, reason_of
from agent.metadata.system import SYSTEM
from protocol.errors import Code, SteadError
from protocol.vault.chunk import Buffer
from protocol.vault.entry import Entry, Stream

_LOST: Final = DATA_LOSS | {Code.INVALID}
KIND: Final = "named streams"
"""What is told of where there is no place for them."""

ContentOf = Callable[[Stream], Iterable[Buffer | int]]
"""Its content, piece by piece; a number is a hole. Raises what is wrong with it."""


class NamedWriter:
    """Does so for one restore; `no_place` is told of each file or folder that loses some."""

    def __init__(
        self, content_of: ContentOf, failed: SkippedList, no_place: Callable[[str], None]
    ) -> None:
        self._content_of = content_of
        self._failed = failed
        self._no_place = no_place

    def give(self, path: bytes, directory: int, name: bytes, entry: Entry) -> None:
        """Write the streams of an entry that is restored as `name` in a directory, or of that
        directory itself where there is no name. Raises `OSError` when it cannot be looked at or
        there is no room left, and what is wrong with the vault but for loss and damage.
        """
        found = os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
        if SYSTEM.streams(directory, name, found) is None:
            self._no_place(KIND)
            return
        settable = [one for one in entry.streams if SYSTEM.takes_stream(one.name)]
        if len(settable) < len(entry.streams):
            self._no_place(KIND)
        for stream in settable:
            reason = self._write(directory, name, stream)
            if reason is not None:
                with suppress(OSError):
                    SYSTEM.remove_stream(directory, name, stream.name)
                self._failed.add(path + b":" + stream.name, f"named stream: {reason}")

    def keep_only(self, directory: int, entry: Entry) -> None:
        """Take every other stream off a directory that was there. Raises `OSError`."""
        listing = SYSTEM.streams(directory, b"", os.fstat(directory))
        if listing is not None:
            wanted = {stream.name for stream in entry.streams}
            for one in listing.streams:
                if one.name not in wanted:
                    SYSTEM.remove_stream(directory, b"", one.name)

    def _write(self, directory: int, name: bytes, stream: Stream) -> str | None:
        try:
            with SYSTEM.write_stream(directory, name, stream.name) as write:
                for piece in self._content_of(stream):
                    write(piece)
        except OSError as error:
            if error.errno in FULL:
                raise
            return reason_of(error)
        except SteadError as error:
            if error.code not in _LOST:
                raise
            return str(error)
        return None
