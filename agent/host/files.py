"""Write files so that a cut at any moment leaves the old content or the new one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from protocol.errors import Code, SteadError

PRIVATE = 0o600


def make_private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter; one that is there is left as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Replace a file as a whole, durably: temporary file, fsync, rename, fsync of the directory.

    Raises STORE_FULL, which names the path, when it cannot be written.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        number = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, mode)
            file.write(content)
            file.flush()
            os.fsync(number)
        aside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise SteadError(
            f"cannot write {path}: {error.strerror}; look at free space and permissions",
            code=Code.STORE_FULL,
        ) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Windows keeps them so by itself."""
    if os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_if_there(path: Path) -> bytes | None:
    """A file's content; None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
