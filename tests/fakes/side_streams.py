"""Named streams on any file system: each is a file in a folder beside, by its owner's inode.

It keeps the promises of `agent.metadata.port.System`: a stream goes where its file goes,
and who writes one changes the times of the file, as NTFS does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.metadata.named import MAKE, READ, Fill, Listing, Named, Write, reading, writing
from agent.metadata.system import SYSTEM
from agent.metadata.windows.streams import problem_of

METHODS = ("streams", "takes_stream", "read_stream", "write_stream", "remove_stream")


class SideStreams:
    """Streams lie below `side`. Below `nowhere` there is no place for any. `close` it."""

    def __init__(self, side: Path) -> None:
        self.side = side
        self.nowhere: set[Path] = set()
        self.refused: dict[bytes, int] = {}
        # While it is open, the inode of what has streams is nobody else's.
        self._held: list[int] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Be what the system of this process answers with."""
        for name in METHODS:
            method = getattr(self, name)
            patch.setattr(type(SYSTEM), name, lambda _, *args, told=method: told(*args))

    def streams(self, directory: int, name: bytes, found: os.stat_result) -> Listing | None:
        path = Path(f"/proc/self/fd/{directory}").readlink()
        if any(path.is_relative_to(one) for one in self.nowhere):
            return None
        folder = self._folder(directory, name)
        assert (found.st_dev, found.st_ino) == tuple(map(int, folder.name.split("-")))
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        named = [Named(bytes.fromhex(one.name), one.stat().st_size) for one in files]
        return Listing(tuple(sorted(named)))

    def takes_stream(self, stream: bytes) -> bool:
        return problem_of(stream) is None

    @contextmanager
    def read_stream(self, directory: int, name: bytes, stream: bytes) -> Iterator[Fill]:
        self._refuse(stream)
        path = self._folder(directory, name) / stream.hex()
        with reading(os.open(path, READ)) as fill:
            yield fill

    @contextmanager
    def write_stream(self, directory: int, name: bytes, stream: bytes) -> Iterator[Write]:
        assert self.takes_stream(stream)
        self._refuse(stream)
        folder = self._folder(directory, name)
        if not folder.exists():
            self._held.append(os.open(name or b".", READ, dir_fd=directory))
            folder.mkdir()
        with writing(os.open(folder / stream.hex(), MAKE, 0o600)) as write:
            yield write
        os.utime(name or b".", dir_fd=directory)

    def remove_stream(self, directory: int, name: bytes, stream: bytes) -> None:
        (self._folder(directory, name) / stream.hex()).unlink()

    def give(self, path: Path, **streams: bytes) -> None:
        """Give a file streams, by hand."""
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            for stream, content in streams.items():
                with self.write_stream(fd, os.fsencode(path.name), stream.encode()) as write:
                    write(content)
        finally:
            os.close(fd)

    def close(self) -> None:
        for fd in self._held:
            os.close(fd)

    def of(self, path: Path) -> dict[str, bytes]:
        """All that a file or folder has."""
        found = path.lstat()
        folder = self.side / f"{found.st_dev}-{found.st_ino}"
        files = folder.iterdir() if folder.is_dir() else []
        return {bytes.fromhex(one.name).decode(): one.read_bytes() for one in files}

    def _folder(self, directory: int, name: bytes) -> Path:
        found = os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
        return self.side / f"{found.st_dev}-{found.st_ino}"

    def _refuse(self, stream: bytes) -> None:
        if stream in self.refused:
            raise OSError(self.refused[stream], os.strerror(self.refused[stream]))
