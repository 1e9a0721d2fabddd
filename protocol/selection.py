"""What of its paths a backup takes, and the commands that belong to it: as orders say it.

The field names are those of `protocol/v1/order.proto`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """What a backup leaves out. The named paths themselves are always taken.

    `exclude` are lines in the syntax of .gitignore, as if they stood in `/.gitignore`.
    Sizes are in bytes and ages in seconds since the content changed; they are asked of
    files alone, and 0 is no limit.
    """

    exclude: tuple[bytes, ...] = ()
    no_defaults: bool = False
    exclude_caches: bool = False
    one_file_system: bool = False
    larger_than: int = 0
    smaller_than: int = 0
    older_than_s: int = 0
    newer_than_s: int = 0

    @property
    def ask_more_than_names(self) -> bool:
        """Whether what is left out can change in places where nothing else does."""
        return bool(
            self.exclude_caches or self.one_file_system or self.older_than_s or self.newer_than_s
        )


BY_DEFAULT = Rules()


@dataclass(frozen=True, slots=True)
class CommandStream:
    """A program whose standard output becomes the file `path` of a restore point."""

    path: bytes
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """Programs of a backup: its streams, and what runs first and last.

    Each may take `timeout_s` seconds; 0 is an hour.
    """

    streams: tuple[CommandStream, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    timeout_s: int = 0

    @property
    def any(self) -> bool:
        """Whether a program is run at all."""
        return bool(self.streams or self.before or self.after)

    @property
    def limit_s(self) -> float:
        """How long each program may take."""
        return float(self.timeout_s or 3600)


NO_COMMANDS = Commands()
