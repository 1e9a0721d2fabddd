"""Write a file that nobody has yet: it is there whole and on the disk, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from controller.authority.durable import sync_directory
from protocol.errors import Code, SteadError


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when the block ends well.

    ALREADY_EXISTS when the name is taken, before or meanwhile; the file there stays as it is.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    if path.exists():
        raise SteadError(f"{path} is there already", code=Code.ALREADY_EXISTS)
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _name(aside, path)
        sync_directory(path.absolute().parent)
    except FileExistsError:
        raise SteadError(f"{path} is there already", code=Code.ALREADY_EXISTS) from None
    except OSError as error:
        raise SteadError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)


def _name(aside: Path, path: Path) -> None:
    """Give a file its name, which must be free. Unlike rename, link refuses a taken one.

    File systems of memory sticks have no links: there the name is taken first.
    """
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:
        with path.open("xb"):
            pass
        aside.replace(path)
