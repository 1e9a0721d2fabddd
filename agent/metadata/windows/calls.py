"""What Windows is asked and told, in bytes: so that recorded answers can stand in for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Calls(Protocol):
    """Each raises `OSError`. Descriptors are the caller's."""

    def basic(self, fd: int) -> bytes:
        """The `FILE_BASIC_INFO` of something open."""
        ...

    def set_basic(self, fd: int, data: bytes) -> None:
        """Set what is not zero in it."""
        ...

    def may_audit(self) -> bool:
        """Whether this process has the privilege that the rules of auditing take."""
        ...

    def security(self, fd: int, *, auditing: bool) -> bytes:
        """The security descriptor, self-relative: owner, group, access list and label, and the
        rules of `auditing`."""
        ...

    def set_security(self, fd: int, parts: int, data: bytes) -> None:
        """Set the parts whose bits (`SECURITY_INFORMATION`) are given."""
        ...

    def reparse(self, fd: int) -> bytes:
        """The `REPARSE_DATA_BUFFER` of something that was opened as itself."""
        ...

    def set_reparse(self, fd: int, data: bytes) -> None:
        """Make it a reparse point."""
        ...

    def streams(self, fd: int) -> Sequence[bytes] | None:
        """A `WIN32_FIND_STREAM_DATA` for each stream; None where the volume has none at all."""
        ...

    def open_stream(self, fd: int, full: bytes, *, anew: bool) -> int:
        """Open a stream of something open, by its name with colons: to read, or to write it
        anew. The descriptor is the caller's to close."""
        ...

    def remove_stream(self, fd: int, full: bytes) -> None:
        """Remove a stream of something open, by its name with colons."""
        ...

    def open_at(self, directory_fd: int, name: bytes) -> int:
        """Open something as itself, links too; the descriptor is the caller's to close."""
        ...
