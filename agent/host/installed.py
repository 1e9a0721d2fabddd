"""Whether the files of this very program are still those that it was started from.

A package manager puts a new release under the feet of the running agent, which would then
start workers of a release that it does not know.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import agent.version
from protocol.errors import Code, SteadError

Mark = tuple[tuple[int, int, int, int] | None, ...]


def own_files() -> tuple[Path, ...]:
    """Files that no two installations of the agent have in common.

    None of a bundled agent on Windows, which lets nobody replace a program that runs.
    """
    if getattr(sys, "frozen", False):
        return () if sys.platform == "win32" else (Path(sys.executable),)
    assert agent.version.__file__ is not None
    return Path(agent.version.__file__), Path(__file__).with_name("launch.py")


class Installed:
    """The files as they are when this is made, which is when the program starts."""

    def __init__(self, files: Sequence[Path] | None = None) -> None:
        self._files = tuple(own_files() if files is None else files)
        self._first = self.look()

    def look(self) -> Mark:
        """What tells the present files from others; None for one that is not there."""
        return tuple(map(_mark, self._files))

    def is_replaced(self) -> bool:
        """Whether other files are there now, or none."""
        return self.look() != self._first


def is_whole(mark: Mark) -> bool:
    """Whether all files were there."""
    return None not in mark


def begin_anew() -> NoReturn:
    """Become the program that is there now, under the same process number.

    Windows has no such thing: there it ends with UPGRADE_REQUIRED, and as a service is started
    again.
    """
    if sys.platform == "win32":
        raise SteadError(
            "the agent's files were replaced; it ends, and the new release is to be started",
            code=Code.UPGRADE_REQUIRED,
        )
    if getattr(sys, "frozen", False):
        # Else it would take itself for a child of the one before.
        os.environ["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
        argv = [sys.executable, *sys.argv[1:]]
    else:
        argv = [sys.executable, *sys.orig_argv[1:]]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, argv)  # noqa: S606 - this very program


def _mark(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
