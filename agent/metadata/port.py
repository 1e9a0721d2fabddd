"""What every system is asked about the things in its file systems, and told to set on them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from agent.metadata.extras import Extras
from agent.metadata.named import Fill, Listing, Write
from protocol.vault.entry import Entry


class System(Protocol):
    """One operating system. Descriptors are the caller's; `OSError` where nothing is said.

    What is given back by `give` and `give_at` is a sentence for each thing that this
    system would take and that could not be set; what it has no place for at all is told
    by `unsettable`.
    """

    @property
    def name(self) -> str:
        """As people know it, such as `Linux`."""
        ...

    def is_away(self, found: os.stat_result, /) -> bool:
        """Whether reading a file would fetch it from a cloud."""
        ...

    def of_open(self, fd: int) -> Extras:
        """Of an open file or directory. Asked of every file: what is rare must cost nothing."""
        ...

    def at(self, directory_fd: int, name: bytes) -> Extras:
        """Of something that is not opened, such as a symbolic link or a pipe."""
        ...

    def give(self, fd: int, entry: Entry) -> Iterable[str]:
        """Set what an entry has on an open file or directory, but for its flags."""
        ...

    def give_at(self, directory_fd: int, name: bytes, entry: Entry) -> Iterable[str]:
        """The same of something that cannot be opened."""
        ...

    def has_flags(self, entry: Entry) -> bool:
        """Whether an entry has flags that this system can set."""
        ...

    def give_flags(self, fd: int, entry: Entry) -> None:
        """Set them on an open file or directory, after all else; `OSError`."""
        ...

    def release(self, fd: int) -> None:
        """Take those flags away that keep an open thing from being changed; `OSError`."""
        ...

    def streams(self, directory_fd: int, name: bytes, found: os.stat_result, /) -> Listing | None:
        """The named streams of a file or directory, which is `found`; None where it lies there
        is no place for any. Asked of every file: where there is none it must cost nothing.

        Without a name the directory itself is meant, here and below.
        """
        ...

    def takes_stream(self, stream: bytes, /) -> bool:
        """Whether a stream can have this name."""
        ...

    def read_stream(
        self, directory_fd: int, name: bytes, stream: bytes, /
    ) -> AbstractContextManager[Fill]:
        """Read a stream from its beginning."""
        ...

    def write_stream(
        self, directory_fd: int, name: bytes, stream: bytes, /
    ) -> AbstractContextManager[Write]:
        """Write a stream anew, of a name that is taken."""
        ...

    def remove_stream(self, directory_fd: int, name: bytes, stream: bytes, /) -> None:
        """Remove a stream."""
        ...
