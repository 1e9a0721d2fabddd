"""Where the facts of a machine come from: a few callables, so that a test can give a tree.

Paths are absolute and lie under `root`; a recorded tree stands in for a machine as it is.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.host.process import Run, run
from protocol.errors import UnavailableError

FILE_LIMIT_BYTES = 64 * 1024 * 1024
LINE_LIMIT_BYTES = 4096
CAPACITY_S = 1.0
"""A file system that takes longer to say how large it is has something behind it that hangs."""
PIECE_BYTES = 128 * 1024  # the kernel sets this much aside to answer a read under /proc/sys

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Capacity:
    """How large a file system is, how much of it is taken, and what is left to anyone."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything a collector may ask. All but `text` and `line` raise `OSError`."""

    read: Callable[[str, int], bytes]
    names: Callable[[str], Sequence[str]]
    link: Callable[[str], str]
    capacity: Callable[[str], Capacity]
    addresses_v4: Callable[[], Mapping[str, Sequence[str]]]
    run: Run
    arch: str

    def text(self, path: str) -> str:
        """A whole file; raises `UnavailableError` with the reason when it cannot be read."""
        try:
            content = self.read(path, FILE_LIMIT_BYTES + 1)
        except OSError as error:
            raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
        if len(content) > FILE_LIMIT_BYTES:
            raise UnavailableError(f"{path} is larger than {FILE_LIMIT_BYTES} bytes")
        return decode(content)

    def line(self, path: str) -> str | None:
        """The first line of a small file; None when it is not there or has no value."""
        try:
            content = self.read(path, LINE_LIMIT_BYTES)
        except OSError:
            return None
        return decode(content).partition("\n")[0].strip() or None

    def number(self, path: str) -> int | None:
        """The number a small file holds; None when it is not there or holds none."""
        text = self.line(path)
        return int(text) if text and text.lstrip("-").isdecimal() else None

    def listed(self, path: str) -> Sequence[str]:
        """The names in a directory; raises `UnavailableError` when it cannot be listed."""
        try:
            return self.names(path)
        except OSError as error:
            raise UnavailableError(f"cannot list {path}: {error.strerror}") from error

    def exists(self, path: str) -> bool:
        """Whether a file or a directory is there; reading it may still be forbidden."""
        try:
            self.read(path, 0)
        except (IsADirectoryError, PermissionError):
            return True
        except OSError:
            return False
        return True


def decode(content: bytes) -> str:
    """Text that keeps bytes which are no UTF-8 as surrogates; see `section.inert`."""
    return content.decode("utf-8", "surrogateescape")


def sources_at(root: Path = Path("/"), *, run: Run = run) -> Sources:
    """The machine itself, or the recorded tree of one under `root`."""

    def at(path: str) -> Path:
        return root / path.lstrip("/")

    def read(path: str, limit: int) -> bytes:
        pieces = []
        with at(path).open("rb") as file:
            while limit > 0 and (piece := file.read(min(limit, PIECE_BYTES))):
                pieces.append(piece)
                limit -= len(piece)
        return b"".join(pieces)

    def names(path: str) -> Sequence[str]:
        with os.scandir(at(path)) as entries:
            return sorted(entry.name for entry in entries)

    def link(path: str) -> str:
        return str(at(path).readlink())

    def capacity(path: str) -> Capacity:
        return answered(lambda: size_at(path), CAPACITY_S)

    def size_at(path: str) -> Capacity:
        if sys.platform == "win32":
            return Capacity(*shutil.disk_usage(at(path)))
        found = os.statvfs(at(path))
        unit = found.f_frsize
        return Capacity(
            total_bytes=found.f_blocks * unit,
            used_bytes=(found.f_blocks - found.f_bfree) * unit,
            free_bytes=found.f_bavail * unit,
        )

    return Sources(
        read=read,
        names=names,
        link=link,
        capacity=capacity,
        addresses_v4=addresses_v4,
        run=run,
        arch=platform.machine(),
    )


def answered(ask: Callable[[], T], within_s: float) -> T:
    """What is asked for; ETIMEDOUT where there is no answer in time.

    Whoever asks then waits on, in a thread that ends with the process.
    """
    answer: Future[T] = Future()

    def wait() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised to who asked
            answer.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        return answer.result(within_s)
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, f"it did not answer within {within_s:g} s") from None


def addresses_v4() -> Mapping[str, Sequence[str]]:
    """The IPv4 addresses of each interface, as address/prefix length."""
    import psutil

    found: dict[str, list[str]] = {}
    for name, addresses in psutil.net_if_addrs().items():
        for entry in addresses:
            if entry.family == socket.AF_INET:
                length = prefix_length(entry.netmask)
                found.setdefault(name, []).append(f"{entry.address}/{length}")
    return found


def prefix_length(netmask: str | None) -> int:
    """How many leading bits a dotted mask has; 32 when there is no mask.

    >>> prefix_length("255.255.254.0")
    23
    """
    if netmask is None:
        return 32
    return int.from_bytes(socket.inet_aton(netmask), "big").bit_count()
