"""Write files so that a cut at any moment leaves the old content or the new one."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from agent.host.descriptor import OURS, replace, sync
from protocol.errors import Code, SteadError

PRIVATE = 0o600
REPLACE_TRIES = 40
REPLACE_AGAIN_S = 0.05


def make_private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter; one that is there is left as it is.

    Raises DENIED on Windows where it would lie in a folder of somebody else's.
    """
    if sys.platform == "win32":
        from agent.host.access_list import check_owner, make_private

        missing = [one for one in (path, *path.parents) if not one.exists()]
        check_owner(missing[-1].parent if missing else path)
        for one in reversed(missing):
            make_private(one)
            # Somebody else may have been first: then it is his.
            check_owner(one)
    else:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Replace a file as a whole, durably: temporary file, fsync, rename, fsync of the directory.

    Raises STORE_FULL, which names the path, when it cannot be written.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        number = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | OURS, mode)
        with os.fdopen(number, "wb") as file:
            if sys.platform != "win32":
                os.fchmod(number, mode)
            file.write(content)
            file.flush()
            sync(number)
        _replace(aside, path)
        sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise SteadError(
            f"cannot write {path}: {error.strerror}; look at free space and permissions",
            code=Code.STORE_FULL,
        ) from error


def _replace(aside: Path, path: Path) -> None:
    """Give a file the name of another. On Windows nobody may have that one open, which a
    reader has for a moment.
    """
    tries = REPLACE_TRIES if sys.platform == "win32" else 1
    for left in reversed(range(tries)):
        try:
            replace(str(aside), str(path))
        except PermissionError:
            if not left:
                raise
            time.sleep(REPLACE_AGAIN_S)
        else:
            return


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; on Windows `replace` has done that."""
    if sys.platform != "win32":
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync(number)
        finally:
            os.close(number)


def read_if_there(path: Path) -> bytes | None:
    """A file's content; None when there is no such file. PRECONDITION when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SteadError(
            f"{path} cannot be read: {error.strerror}; look at the disk and permissions",
            code=Code.PRECONDITION,
        ) from error
