"""Find the files that programs hold open for writing: they may change without an event.

What is written through a mapping of memory, or by the kernel for a loop device, is not
reported. Such a file is open or mapped while that happens, and when it is closed there is
an event. So what is held when a run begins is looked at in this run and in the next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from re import compile as pattern

from agent.watch.mounts import is_below

_MAPPED = pattern(rb"^\S+ .w.s \S+ \S+:\S+ [1-9]\d* +/(.*)$")
_FOR_WRITING = 0o200
_REGULAR = 8
_PAUSES_S = (0.0, 0.05, 0.2)
"""A file that is renamed, or on its way to another name, has none for a moment."""


@dataclass(slots=True)
class Held:
    """Paths without their first slash. `nameless`: some cannot be named from here."""

    paths: set[bytes] = field(default_factory=set)
    nameless: bool = False


def parse_maps(text: bytes) -> Iterator[bytes]:
    r"""Paths of files in /proc/PID/maps that are mapped shared and for writing.

    >>> list(parse_maps(b"7f00-7f01 rw-s 00000000 fe:00 42      /srv/a b\n"))
    [b'srv/a b']
    """
    for line in text.split(b"\n"):
        if b"w" in line and (found := _MAPPED.match(line)):
            # Newlines in names are escaped here, and only they.
            yield found[1].replace(rb"\012", b"\n")


def find_held(
    paths: tuple[bytes, ...], devices: frozenset[int] | None, processes: Path = Path("/proc")
) -> Held:
    """Held files below `paths`, and whether one on `devices` (None: any) is nameless.

    An agent without privileges sees its own user's programs only.
    """
    held = Held()
    look = _Look(paths, devices, held)
    doubtful: list[tuple[Callable[[str], bool], str]] = []
    own = str(os.getpid())
    with os.scandir(processes) as found:
        for process in found:
            if process.name.isdigit() and process.name != own:
                opened = _opened_by(process.path)
                doubtful += [(look.at_opened, one) for one in opened if look.at_opened(one)]
                if look.at_mapped(process.path):
                    doubtful.append((look.at_mapped, process.path))
    for pause in _PAUSES_S:
        if doubtful:
            threading.Event().wait(pause)
            doubtful = [(again, what) for again, what in doubtful if again(what)]
    held.nameless = bool(doubtful)
    for name in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            look.note(name.read_bytes().rstrip(b"\n").lstrip(b"/"))
    return held


class _Look:
    """Looks at what programs hold, and notes what is wanted. Each answers whether something
    cannot be named.
    """

    def __init__(
        self, paths: tuple[bytes, ...], devices: frozenset[int] | None, held: Held
    ) -> None:
        self._paths = paths
        self._devices = devices
        self._held = held

    def at_opened(self, link: str) -> bool:
        """One open file, by its link in /proc/PID/fd."""
        try:
            path = os.fsencode(Path(link).readlink())
            there = Path(link).stat()
        except OSError:
            return False
        if not path.startswith(b"/") or path.startswith((b"/dev/", b"/proc/")):
            return False
        if there.st_mode >> 12 != _REGULAR or not there.st_nlink:
            return False
        try:
            here = Path(os.fsdecode(path)).stat()
        except OSError:
            here = None
        if here is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            self.note(path.lstrip(b"/"))
            return False
        # Opened where other file systems are mounted, or by a name that is gone.
        return self._devices is None or there.st_dev in self._devices

    def at_mapped(self, process: str) -> bool:
        """All that one program has mapped."""
        try:
            mapped = set(parse_maps((Path(process) / "maps").read_bytes()))
        except OSError:
            return False
        elsewhere = [path for path in mapped if not self.note(path)]
        return any(map(_is_nowhere, elsewhere))

    def note(self, path: bytes) -> bool:
        """Note a held file; whether it is one that is wanted."""
        is_wanted = any(is_below(path, wanted) for wanted in self._paths)
        if is_wanted:
            self._held.paths.add(path)
        return is_wanted


def _opened_by(process: str) -> list[str]:
    """Links to what a program has open for writing."""
    found: list[str] = []
    with suppress(OSError), os.scandir(f"{process}/fd") as links:
        for link in links:
            with suppress(OSError):
                if link.stat(follow_symlinks=False).st_mode & _FOR_WRITING:
                    found.append(link.path)
    return found


def _is_nowhere(path: bytes) -> bool:
    return not (os.path.lexists(b"/" + path) or path.endswith(b" (deleted)") or _is_of_memory(path))


def _is_of_memory(path: bytes) -> bool:
    return path.startswith((b"memfd:", b"dev/", b"SYSV", b"anon_hugepage", b"[aio]", b"i915"))
