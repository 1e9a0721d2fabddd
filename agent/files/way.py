"""Walk to a file by its path, one directory at a time, along links that others cannot set.

Whoever owns a directory on the way could make one of its names a link to anywhere, and an
agent that runs as root would write or read there for him. So a link is followed only where
it and the directory that holds it belong to root or to whom the agent runs as, and nobody
else may change names in there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import Code, InvalidError, NotFoundError, SteadError

# On a way it is enough to be let through: many directories let nobody look into them.
_ON_THE_WAY: Final = (
    getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_LINKS: Final = 40
_MADE_MODE: Final = 0o755
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Spot:
    """An open directory and a name in it. `path` is how it was asked for.

    The directory is open for going on from there, and for nothing else.
    """

    fd: int
    name: bytes
    path: bytes

    @property
    def shown(self) -> str:
        """The path for people."""
        return shown(self.path)


def shown(path: bytes) -> str:
    """A path for people."""
    return path.decode(errors="backslashreplace")


def check_path(path: bytes) -> bytes:
    """The path, when it can name a file; INVALID otherwise.

    >>> check_path(b"/etc/hosts")
    b'/etc/hosts'
    """
    parts = path.split(b"/")
    if not path.startswith(b"/") or b"\0" in path or len(path) >= _LONGEST:
        raise InvalidError(f"{shown(path)[:200]!r} is not an absolute path")
    if parts[-1] in (b"", b".", b"..") or b".." in parts:
        raise InvalidError(f"{shown(path)[:200]!r} does not name a file; write it without '..'")
    return path


@contextmanager
def spot_at(path: bytes, home: Path, *, make: bool = False, follow: bool = False) -> Iterator[Spot]:
    """The directory that holds `path`, open, for the length of a `with`.

    `make` makes the directories that are missing. `follow` follows a link at the end, too.
    Raises NOT_FOUND, and DENIED for a link that others can set and for what is below `home`,
    the agent's own.
    """
    left = [part for part in check_path(path).split(b"/") if part not in (b"", b".")]
    fd = os.open(b"/", _ON_THE_WAY)
    links = 0
    try:
        while len(left) > 1 or follow:
            target = _link_at(fd, left[0], path)
            if target is None:
                if len(left) == 1:
                    break
                below = _entered(fd, left[0], path, make=make, hint=not follow)
                left = left[1:]
            else:
                links += 1
                if links > _MOST_LINKS:
                    raise InvalidError(f"{shown(path)}: too many links on the way")
                left = [p for p in target.split(b"/") if p not in (b"", b".")] + left[1:]
                below = os.open(b"/", _ON_THE_WAY) if target.startswith(b"/") else os.dup(fd)
                while left[:1] == [b".."]:
                    above = os.open(b"..", _ON_THE_WAY, dir_fd=below)
                    os.close(below)
                    below, left = above, left[1:]
                if not left:
                    os.close(below)
                    raise InvalidError(f"{shown(path)} is a directory; name a file")
            os.close(fd)
            fd = below
        if _is_within(fd, home):
            raise SteadError(
                f"{shown(path)} is the agent's own; orders neither read nor write there",
                code=Code.DENIED,
            )
        yield Spot(fd, left[0], path)
    finally:
        os.close(fd)


@contextmanager
def listing(fd: int) -> Iterator[int]:
    """A directory of a way, open for reading; `PermissionError` where that is not allowed."""
    readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        yield readable
    finally:
        os.close(readable)


def sync_names(fd: int) -> None:
    """Make the names in a directory of a way durable, where it may be read: else nobody can."""
    with suppress(PermissionError), listing(fd) as readable:
        os.fsync(readable)


def open_regular(spot: Spot) -> int:
    """Open a regular file for reading; nothing is waited for, whatever else lies there.

    Raises NOT_FOUND, and INVALID for what is no regular file: it is not even opened, since
    opening some devices does something, such as starting the machine's watchdog.
    """
    try:
        found = os.lstat(spot.name, dir_fd=spot.fd)
        _check_regular(found, spot)
        fd = os.open(spot.name, _READ, dir_fd=spot.fd)
    except FileNotFoundError:
        raise NotFoundError(f"{spot.shown} is not there") from None
    except OSError as error:
        raise _trouble(spot.path, error) from error
    try:
        _check_regular(os.fstat(fd), spot)
    except SteadError:
        os.close(fd)
        raise
    return fd


def _check_regular(found: os.stat_result, spot: Spot) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise InvalidError(f"{spot.shown} is {kind}")


def _link_at(fd: int, name: bytes, path: bytes) -> bytes | None:
    """Where a link leads; None for what is no link, or is not there."""
    if name == b"..":
        return None
    try:
        found = os.lstat(name, dir_fd=fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _trouble(path, error) from error
    if not stat.S_ISLNK(found.st_mode):
        return None
    holder = os.fstat(fd)
    trusted = {0, os.geteuid()}
    is_open = bool(holder.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    is_sticky = bool(holder.st_mode & stat.S_ISVTX)
    if found.st_uid not in trusted or holder.st_uid not in trusted or (is_open and not is_sticky):
        raise SteadError(
            f"{shown(path)}: {shown(name)} is a link that others than root can set; name what "
            "it leads to",
            code=Code.DENIED,
        )
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError as error:
        raise _trouble(path, error) from error


def _entered(fd: int, name: bytes, path: bytes, *, make: bool, hint: bool) -> int:
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, _MADE_MODE, dir_fd=fd)
                sync_names(fd)
        return os.open(name, _ON_THE_WAY, dir_fd=fd)
    except FileNotFoundError as error:
        step = "; make it, or add --make-directories" if hint else ""
        raise NotFoundError(f"{shown(path)}: there is no directory {shown(name)}{step}") from error
    except OSError as error:
        raise _trouble(path, error) from error


def _trouble(path: bytes, error: OSError) -> SteadError:
    return SteadError(f"{shown(path)}: {error.strerror}", code=Code.PRECONDITION)


def _is_within(fd: int, home: Path) -> bool:
    """Whether a directory is `home` or below it, however it was reached."""
    try:
        own = home.stat()
    except OSError:
        return False
    now = os.dup(fd)
    try:
        while True:
            here = os.fstat(now)
            if (here.st_dev, here.st_ino) == (own.st_dev, own.st_ino):
                return True
            above = os.open(b"..", _ON_THE_WAY, dir_fd=now)
            os.close(now)
            now = above
            up = os.fstat(now)
            if (up.st_dev, up.st_ino) == (here.st_dev, here.st_ino):
                return False
    finally:
        os.close(now)
