"""Write a file so that it is there whole, or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Make a new file that is on the disk, with its name, when this returns.

    Raises `FileExistsError` rather than replace what is there: keys cannot be made again.
    """
    temporary = _aside(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Unlike rename, link refuses when the name is taken.
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync_directory(path.parent)


def _aside(path: Path) -> Path:
    """A name that nothing has: in containers a killed process's number comes again."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def replace_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put other content into a file: after a cut at any moment it is the old or the new."""
    aside = _aside(path)
    write_durably(aside, data, mode=mode)
    aside.replace(path)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may enter; fine when it is there."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
