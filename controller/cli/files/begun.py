"""Gets that a `stead` began: what the next one needs to go on where that one was killed.

Each is a file of JSON lines, private, locked by who works at it: first what was begun, with
the keys that the machines seal their files to, then what has been done since. Content that
came lies beside its place under the parcel's name. Both go when the get is over.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from controller.authority.durable import make_directory, sync_directory
from protocol.errors import UNREADABLE

_LONGEST = 200
_SUFFIX = ".jsonl"
_OPENED = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


class Begun(msgspec.Struct, frozen=True):
    """What was begun. `keys` and `places` are by machine; texts of places are as bytes."""

    tenant: str
    parcel: str
    path: bytes
    max_bytes: int
    keys: dict[str, bytes]
    places: dict[str, bytes]
    begun_at: datetime
    ends_at: datetime

    def is_like(self, other: Begun) -> bool:
        """Whether both bring the same files of the same machines to the same places."""
        return (self.tenant, self.path, self.max_bytes, self.places) == (
            other.tenant,
            other.path,
            other.max_bytes,
            other.places,
        )


class _Since(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line: the job was handed in, or a machine's file is in its place."""

    job: str = ""
    got: str = ""


class Get:
    """One get under way: `begun`, its `job` once that was handed in, and whose file is there.

    Nobody else takes it up until it is closed.
    """

    def __init__(self, path: Path, fd: int, begun: Begun) -> None:
        self.begun = begun
        self.job = ""
        self.got: set[str] = set()
        self._path = path
        self._fd = fd

    @classmethod
    def begin(cls, folder: Path, begun: Begun) -> Get:
        """Note what is begun; it stays unless it is said to be over."""
        make_directory(folder)
        path = folder / f"{begun.parcel}{_SUFFIX}"
        with _door(folder):
            fd = os.open(path, _OPENED | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            get = cls(path, fd, begun)
            get._append(begun)
            sync_directory(folder)
        return get

    def ordered(self, job: str) -> None:
        """The order was handed in."""
        self._append(_Since(job=job))
        self.job = job

    def fetched(self, machine: str) -> None:
        """A machine's file is in its place."""
        self._append(_Since(got=machine))
        self.got.add(machine)

    def part_of(self, machine: str) -> Path:
        """Where what came of a machine's file lies until it is whole."""
        place = Path(os.fsdecode(self.begun.places[machine]))
        name = os.fsencode(place.name)[:_LONGEST].decode(errors="ignore")
        return place.with_name(f".{name}.{self.begun.parcel}.part")

    def settle(self) -> None:
        """Take note of files that have both names: a run was killed before one of them went."""
        for machine, place in self.begun.places.items():
            part = self.part_of(machine)
            with suppress(FileNotFoundError):
                if part.samefile(os.fsdecode(place)):
                    part.unlink()
                    self.fetched(machine)

    def over(self) -> None:
        """Nothing of it is needed any more."""
        for machine in self.begun.places:
            self.part_of(machine).unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def read_on(self, lines: Iterable[bytes]) -> None:
        """Take in what was done by an earlier run; a line that was cut off is none."""
        for line in lines:
            with suppress(*UNREADABLE):
                since = msgspec.json.decode(line, type=_Since)
                self.job = since.job or self.job
                self.got |= {since.got} - {""}

    def _append(self, said: msgspec.Struct) -> None:
        os.write(self._fd, msgspec.json.encode(said) + b"\n")
        os.fsync(self._fd)


def take_up(folder: Path, wanted: Begun, drop: Callable[[Begun], object]) -> Get | None:
    """The newest of those that are like `wanted` and that nobody works at; None without one.

    Those whose time is over or that came to no order are removed, and `drop` is told of them.
    """
    found: Get | None = None
    if not folder.is_dir():
        return None
    with _door(folder):
        for path in sorted(folder.glob(f"*{_SUFFIX}"), reverse=True):
            get = _opened(path)
            if get is None:
                continue
            if not get.job or get.begun.ends_at <= wanted.begun_at:
                drop(get.begun)
                get.over()
            elif found is None and get.begun.is_like(wanted):
                found = get
                continue
            get.close()
    return found


@contextmanager
def _door(folder: Path) -> Iterator[None]:
    """Keep others from looking while one of the files is not locked yet."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _opened(path: Path) -> Get | None:
    """A get that nobody works at."""
    try:
        fd = os.open(path, _OPENED)
    except FileNotFoundError:
        return None  # just over
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        first, *lines = path.read_bytes().split(b"\n")
        get = Get(path, fd, msgspec.json.decode(first, type=Begun))
    except (BlockingIOError, FileNotFoundError):
        os.close(fd)
        return None
    except UNREADABLE:
        # Cut off when it was begun, or of another release: nothing can be made of it.
        path.unlink(missing_ok=True)
        os.close(fd)
        return None
    get.read_on(lines)
    return get
