"""`stead backup mount`: restore points as a read-only file system, through FUSE."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machine_meant
from controller.cli.operator.connection import Connection
from controller.cli.options.usual import tenant_option
from controller.cli.output.emit import note
from controller.cli.points.mounted import Mounted, folder_names
from controller.cli.points.opened import (
    Opened,
    Readers,
    believed,
    list_points,
    open_point,
    point_meant,
)
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.v1.operator_pb2 import Machine

CACHED_S = 3600.0
_ENDED = frozenset({"7", "8"})
"""What libfuse's main gives when a signal ended it; everything below is a failure."""


class FuseError(SteadError):
    """A file system cannot be mounted here."""

    code = Code.PRECONDITION


@click.command(epilog="Example: stead backup mount web-01 latest /mnt/web-01")
@click.argument("machine")
@click.argument("where", metavar="[POINT] DIRECTORY", nargs=-1, required=True)
@tenant_option
@click.pass_obj
def mount(app: App, /, machine: str, where: tuple[str, ...], tenant: str) -> None:
    """Show restore points as files, read-only, until Ctrl-C.

    Without POINT, every restore point is a folder that is named by its time in UTC, and
    `latest` leads to the newest. Content is fetched when it is read, and checked. Only the
    user who mounts can look in, and whoever may is shown every file, whatever its mode.
    """
    if len(where) > 2:
        raise InvalidError("name at most a restore point and a directory")
    directory = Path(where[-1])
    if not directory.is_dir() or any(directory.iterdir()):
        raise InvalidError(f"{directory} has to be an empty directory; make it with mkdir")
    fuse = fuse_library()
    connection = app.connection
    found = machine_meant(connection, machine, tenant)
    mounted = _one(connection, found, where[0]) if len(where) > 1 else _all(connection, found)
    serve(fuse, mounted, directory)


def fuse_library() -> ModuleType:
    """The binding to FUSE; PRECONDITION where there is none."""
    try:
        return import_module("mfusepy")
    except (ImportError, OSError, AttributeError) as error:
        raise FuseError(
            f"there is no FUSE here ({error}): install the package fuse3, or read with "
            "`stead backup browse` and `stead backup cat`"
        ) from error


def _one(connection: Connection, machine: Machine, name: str) -> Mounted:
    opened = open_point(connection, point_meant(connection, machine, name))
    return Mounted({b"": lambda: opened})


def _all(connection: Connection, machine: Machine) -> Mounted:
    listed = list_points(connection, machine)
    if not listed:
        raise NotFoundError(
            f"{machine.name} has no restore point yet; `stead backup run {machine.name}` makes one"
        )
    readers: Readers = {}

    def opener(place: int) -> Opened:
        return open_point(connection, believed(listed[place]), readers)

    names = folder_names([one.received_at for one in listed])
    points: dict[bytes, Callable[[], Opened]] = {
        name: partial(opener, place) for place, name in enumerate(names)
    }
    return Mounted(points)


def serve(fuse: ModuleType, mounted: Mounted, directory: Path) -> None:
    """Mount and answer until a signal or `umount` ends it."""
    try:
        fuse.FUSE(
            _operations(fuse, mounted, directory),
            str(directory),
            foreground=True,
            # gRPC and trees are used by one thread; what is waited for is the network.
            nothreads=True,
            ro=True,
            nosuid=True,
            nodev=True,
            fsname="stead",
            use_ino=True,
            attr_timeout=CACHED_S,
            entry_timeout=CACHED_S,
            kernel_cache=True,
        )
    except RuntimeError as error:
        if str(error) not in _ENDED:
            raise FuseError(
                f"{directory} cannot be mounted on: is /dev/fuse there, and may you use it?"
            ) from error


def _operations(fuse: ModuleType, mounted: Mounted, directory: Path) -> Any:
    class Files(fuse.Operations):  # type: ignore[misc,name-defined]
        use_ns = True

        def init_with_config(self, *_: object) -> None:
            note(f"mounted at {directory}; Ctrl-C, or `umount`, ends it")

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # noqa: ARG002
            with _told(path):
                return mounted.attributes(mounted.at(_raw(path)))

        def readdir(self, path: str, fh: int) -> Iterator[Any]:  # noqa: ARG002
            with _told(path):
                yield from (".", "..")
                for name, shown in mounted.names(mounted.at(_raw(path))):
                    yield os.fsdecode(name), shown, 0

        def readlink(self, path: str) -> str:
            with _told(path):
                return os.fsdecode(mounted.at(_raw(path)).entry.target)

        def open(self, path: str, flags: int) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                raise OSError(errno.EROFS, path)
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
            with _told(path):
                return mounted.read(mounted.at(_raw(path)), size, offset)

        def listxattr(self, path: str) -> list[str]:
            with _told(path):
                return [os.fsdecode(name) for name, _ in mounted.at(_raw(path)).entry.xattrs]

        def getxattr(self, path: str, name: str, position: int = 0) -> bytes:  # noqa: ARG002
            with _told(path):
                values = dict(mounted.at(_raw(path)).entry.xattrs)
            if os.fsencode(name) not in values:
                raise OSError(fuse.ENOATTR, name)
            return values[os.fsencode(name)]

    return Files()


class _told:  # noqa: N801 - reads as a word
    """Turns our errors into those of a file system; what is lost is also said."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, NotFoundError):
            raise OSError(errno.ENOENT, self._path) from error
        if isinstance(error, SteadError):
            note(f"{self._path}: {error}")
            raise OSError(errno.EIO, self._path) from error


def _raw(path: str) -> bytes:
    return os.fsencode(path).strip(b"/")
