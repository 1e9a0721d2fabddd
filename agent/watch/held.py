"""Find the files that programs hold open for writing: they may change without an event.

What is written through a mapping of memory, or by the kernel for a loop device, is not
reported. Such a file is open or mapped while that happens, and when it is closed there is
an event. So what is held when a run begins is looked at in this run and in the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from re import compile as pattern

from agent.watch.mounts import is_below

_MAPPED = pattern(rb"^\S+ .w.s \S+ \S+:\S+ [1-9]\d* +/(.*)$")
_FOR_WRITING = 0o200
_REGULAR = 8
_TRIES = 3
"""A file that is renamed or removed while one looks has no name for a moment."""


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
    for line in text.splitlines():
        if b"w" in line and (found := _MAPPED.match(line)):
            # Newlines in names are escaped here, and only they.
            yield found[1].replace(rb"\012", b"\n")


def find_held(paths: tuple[bytes, ...], devices: frozenset[int] | None) -> Held:
    """Held files below `paths`, and whether one on `devices` (None: any) is nameless.

    An agent without privileges sees its own user's programs only.
    """
    held = Held()
    own = str(os.getpid())
    with os.scandir("/proc") as processes:
        for process in processes:
            if not process.name.isdigit() or process.name == own:
                continue
            for _ in range(_TRIES):
                found = Held()
                _of_process(process.path, paths, devices, found)
                held.paths |= found.paths
                if not found.nameless:
                    break
            else:
                held.nameless = True
    for name in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            path = name.read_bytes().rstrip(b"\n").lstrip(b"/")
            if _is_wanted(path, paths):
                held.paths.add(path)
    return held


def _of_process(
    process: str, paths: tuple[bytes, ...], devices: frozenset[int] | None, held: Held
) -> None:
    with suppress(OSError), os.scandir(f"{process}/fd") as open_files:
        for link in open_files:
            with suppress(OSError):
                if not link.stat(follow_symlinks=False).st_mode & _FOR_WRITING:
                    continue
                path = os.fsencode(Path(link.path).readlink())
                if path.startswith(b"/") and not path.startswith((b"/dev/", b"/proc/")):
                    _note(path.lstrip(b"/"), link, paths, devices, held)
    with suppress(OSError):
        for path in parse_maps(Path(f"{process}/maps").read_bytes()):
            if _is_wanted(path, paths):
                held.paths.add(path)
            elif not os.path.lexists(b"/" + path) and not path.endswith(b" (deleted)"):
                held.nameless = held.nameless or not _is_of_memory(path)


def _note(
    path: bytes,
    link: os.DirEntry[str],
    paths: tuple[bytes, ...],
    devices: frozenset[int] | None,
    held: Held,
) -> None:
    there = link.stat()
    if there.st_mode >> 12 != _REGULAR or not there.st_nlink:
        return
    try:
        here = Path(os.fsdecode(b"/" + path)).stat()
    except OSError:
        here = None
    if here is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
        if _is_wanted(path, paths):
            held.paths.add(path)
    elif devices is None or there.st_dev in devices:
        # Opened where other file systems are mounted.
        held.nameless = True


def _is_wanted(path: bytes, paths: tuple[bytes, ...]) -> bool:
    return any(is_below(path, wanted) for wanted in paths)


def _is_of_memory(path: bytes) -> bool:
    return path.startswith((b"memfd:", b"dev/", b"SYSV", b"anon_hugepage", b"[aio]", b"i915"))
