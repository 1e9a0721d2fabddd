"""Objects as files in a local directory, durable before they are acknowledged.

An object is written under a temporary name, fsynced, linked to its own name (which
fails when the name is taken, where a rename would replace), and its directory is
fsynced. A failed fsync is never tried again: the kernel may have dropped what it
could not write, and would then report success over nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from controller.store.store import (
    ObjectMissingError,
    Piece,
    StoreFailedError,
    StoreFullError,
    check_key,
    check_range,
)
from protocol.errors import InvalidError

# No key has a part that begins with a dot.
_TEMPORARY = ".temporary"
_QUARANTINE = ".quarantine"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT = (FileNotFoundError, NotADirectoryError)
_LARGEST_READ = 1 << 30


def _unique() -> str:
    return uuid.uuid4().hex


class LocalStore:
    """See `controller.store.store.ObjectStore`; make one with `LocalStore.open`."""

    def __init__(self, root: Path, *, new_name: Callable[[], str] = _unique) -> None:
        self._root = root
        self._new_name = new_name
        self._durable: set[Path] = set()
        self._failed: str | None = None
        self._door = threading.Lock()

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open a directory, made when it is missing, and clear what a crash left behind.

        Raises `InvalidError` when something else has its name, `StoreFailedError`,
        `StoreFullError`.
        """
        store = cls(root.absolute())
        if root.exists() and not root.is_dir():
            raise InvalidError(f"{root} is not a directory; name another with --objects")
        with store._named(0):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(root.absolute().parent)
            store._make_durable(store._root / _TEMPORARY)
            _clear(store._root / _TEMPORARY)
        return store

    def put(self, key: str, pieces: Iterable[Piece]) -> bool:
        """See `ObjectStore.put`."""
        path = self._path(key)
        self._refuse_after_failure()
        if self.exists(key):
            # Whoever linked it may not have come to the fsync.
            self._settle_directory(path.parent)
            return False
        temporary = self._root / _TEMPORARY / self._new_name()
        with self._named(0):
            self._make_durable(path.parent)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # A lock tells a writer at work from one that died; see `_clear`.
            with self._named(0):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._fill(descriptor, pieces)
            made = self._link(temporary, path)
        finally:
            try:
                with self._named(0):
                    temporary.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
        self._settle_directory(path.parent)
        return made

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        check_range(offset, length)
        with self._reading(key):
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                rest = max(os.fstat(descriptor).st_size - offset, 0)
                return _read(descriptor, offset, rest if length is None else min(length, rest))
            finally:
                os.close(descriptor)

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        with self._reading(key):
            found = self._path(key).lstat()
            if not stat.S_ISREG(found.st_mode):
                raise ObjectMissingError(key)
            return found.st_size

    def exists(self, key: str) -> bool:
        """See `ObjectStore.exists`."""
        with self._named(0):
            return self._path(key).is_file()

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `ObjectStore.list`."""
        with self._named(0):
            yield from _walk(self._root, "", prefix)

    def delete(self, key: str) -> bool:
        """See `ObjectStore.delete`."""
        path = self._path(key)
        with self._named(0):
            try:
                path.unlink()
            except _ABSENT:
                return False
            except IsADirectoryError:
                return False
        self._settle_directory(path.parent)
        return True

    def quarantine(self, key: str, reason: str) -> None:
        """See `ObjectStore.quarantine`. The file goes to `.quarantine/<key>.<unique>`."""
        path = self._path(key)
        aside = self._root / _QUARANTINE / f"{key}.{self._new_name()}"
        why = aside.with_name(aside.name + ".reason")
        with self._reading(key):
            self.size(key)
            self._make_durable(aside.parent)
            with why.open("xb") as file:
                file.write(reason.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(path, aside, follow_symlinks=False)
            self._sync(aside.parent)
            path.unlink()
        self._settle_directory(path.parent)

    def drop_cached(self, key: str) -> None:
        """See `ObjectStore.drop_cached`. The kernel is asked; what others hold stays."""
        with self._named(0):
            try:
                descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW)
            except _ABSENT:
                return
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def free_bytes(self) -> int | None:
        """What an unprivileged process may still write to this file system."""
        with self._named(0):
            found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _fill(self, descriptor: int, pieces: Iterable[Piece]) -> None:
        written = 0
        for piece in pieces:
            view = memoryview(piece).cast("B")
            written += len(view)
            with self._named(written):
                while view:
                    view = view[os.write(descriptor, view) :]
        with self._named(written):
            os.fsync(descriptor)

    def _link(self, temporary: Path, path: Path) -> bool:
        with self._named(0):
            try:
                os.link(temporary, path, follow_symlinks=False)
            except FileExistsError:
                if path.is_dir():
                    raise InvalidError(f"{path.name!r} is the beginning of other keys") from None
                return False
        return True

    def _make_durable(self, folder: Path) -> None:
        """Make a directory and see to it once that its name and its parents' survive."""
        if folder == self._root or folder in self._durable:
            return
        self._make_durable(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._sync(folder.parent)
        with self._door:
            self._durable.add(folder)

    def _settle_directory(self, folder: Path) -> None:
        """Make links and unlinks in a directory durable."""
        self._refuse_after_failure()
        with self._named(0):
            self._make_durable(folder)
            self._sync(folder)

    def _sync(self, folder: Path) -> None:
        """Fsync a directory; once that failed, nothing is acknowledged any more."""
        try:
            _sync_directory(folder)
        except OSError as error:
            self._failed = str(error.strerror)
            raise

    def _refuse_after_failure(self) -> None:
        if self._failed is not None:
            raise StoreFailedError(
                f"the disk under {self._root} failed before ({self._failed}); check the disk, "
                "then restart the controller"
            )

    @contextmanager
    def _named(self, needed_bytes: int) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidError("a key cannot begin with another key and a slash") from error
        except OSError as error:
            raise self._trouble(error, needed_bytes) from error

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (*_ABSENT, IsADirectoryError):
            raise ObjectMissingError(key) from None
        except OSError as error:
            raise self._trouble(error, 0) from error

    def _trouble(self, error: OSError, needed_bytes: int) -> StoreFailedError | StoreFullError:
        if error.errno in _FULL:
            found = os.statvfs(self._root)
            return StoreFullError(
                str(self._root),
                free_bytes=found.f_bavail * found.f_frsize,
                needed_bytes=needed_bytes,
            )
        return StoreFailedError(
            f"the disk under {self._root} failed: {error.strerror}; check the disk"
        )


def _read(descriptor: int, offset: int, length: int) -> bytes:
    first = os.pread(descriptor, min(length, _LARGEST_READ), offset)
    if len(first) == length:
        return first
    parts = [first]
    while parts[-1] and (rest := length - sum(map(len, parts))):
        at = offset + length - rest
        parts.append(os.pread(descriptor, min(rest, _LARGEST_READ), at))
    return b"".join(parts)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    """Remove temporary files that no living writer holds."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)


def _walk(folder: Path, above: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Keys below a directory in the order of their text, whose slashes count as such."""
    with os.scandir(folder) as found:
        entries = [(entry, entry.is_dir(follow_symlinks=False)) for entry in found]
    for entry, is_folder in sorted(entries, key=lambda pair: pair[0].name + "/" * pair[1]):
        key = above + entry.name
        if entry.name.startswith("."):
            continue
        if is_folder:
            below = key + "/"
            if below.startswith(prefix) or prefix.startswith(below):
                yield from _walk(folder / entry.name, below, prefix)
        elif key.startswith(prefix):
            try:
                yield key, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
