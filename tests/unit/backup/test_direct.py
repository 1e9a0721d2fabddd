"""Big files are written past the page cache, and are what they were all the same."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backup.restore import direct
from agent.backup.restore.direct import LEAST_BYTES, Block, DirectFile

MEMORY = Path("/dev/shm")
SMALL = Block(8192)
CONTENT = random.Random(1).randbytes(3 * LEAST_BYTES)

lengths = st.one_of(st.integers(1, 9000), st.sampled_from((1, 4095, 4096, 4097, 8192, 12288)))
parts = st.lists(st.tuples(st.booleans(), lengths), max_size=12)


def as_pieces(parts: Sequence[tuple[bool, int]]) -> list[bytes | int]:
    """Holes are numbers; the rest is content, no two pieces the same."""
    pieces: list[bytes | int] = []
    place = 0
    for is_hole, length in parts:
        pieces.append(length if is_hole else CONTENT[place : place + length])
        place += length
    return pieces


def expected(pieces: Sequence[bytes | int]) -> bytes:
    return b"".join(bytes(one) if isinstance(one, int) else one for one in pieces)


def write(path: Path, pieces: Sequence[bytes | int], block: Block) -> bool:
    """Write a file as a restore does; whether direct writes were used to the end."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        file = DirectFile(fd, block)
        for piece in pieces:
            if isinstance(piece, int):
                file.skip(piece)
            else:
                file.write(piece)
        was_direct = file.is_direct
        file.end()
        os.ftruncate(fd, len(expected(pieces)))
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
    finally:
        os.close(fd)
    return was_direct


def check(directory: Path, pieces: Sequence[bytes | int], block: Block) -> bool:
    path = directory / "file"
    was_direct = write(path, pieces, block)
    assert path.read_bytes() == expected(pieces)
    path.unlink()
    return was_direct


@given(parts)
def test_a_file_is_the_same_whatever_its_pieces_and_holes(
    parts: list[tuple[bool, int]],
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "_LEAST_WRITE", 4096)
        check(Path(name), as_pieces(parts), SMALL)


@settings(max_examples=1000)
@given(parts, st.lists(st.sampled_from((None, 0, 512, 4096, errno.EINVAL)), max_size=20))
def test_short_and_refused_writes_lose_nothing(
    parts: list[tuple[bool, int]], answers: list[int | None]
) -> None:
    real = os.pwrite
    left = iter(answers)

    def pwrite(fd: int, data: memoryview, place: int) -> int:
        """Take all, some of it, or refuse as a disk with larger blocks does."""
        answer = next(left, None)
        if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            return real(fd, data[: answer if answer in (512, 4096) else None], place)
        if answer == errno.EINVAL:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return 0 if answer == 0 else real(fd, data[: (answer or len(data)) // 4096 * 4096], place)

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "_LEAST_WRITE", 4096)
        patch.setattr(os, "pwrite", pwrite)
        check(Path(name), as_pieces(parts), SMALL)


def test_what_the_block_holds_comes_first_where_direct_writes_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, place: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, data, place)

    monkeypatch.setattr(direct, "_LEAST_WRITE", 4096)
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert not check(tmp_path, [b"a", CONTENT[:8192], b"b", b"c"], SMALL)


def test_what_is_written_stays_out_of_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "big"
    if not write(path, [CONTENT], Block()):
        pytest.skip("this file system takes no direct writes")
    assert cached_bytes(path) < LEAST_BYTES // 16
    assert path.read_bytes() == CONTENT
    assert cached_bytes(path) == len(CONTENT)


def test_small_parts_between_holes_wait_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: set[int] = set()
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, place: int) -> int:
        flags.add(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)
        return real(fd, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    check(tmp_path, [CONTENT[:65536], 65536] * 20, Block())
    assert flags == {0}


@pytest.mark.skipif(not MEMORY.is_dir(), reason="there is no file system in memory")
def test_a_file_system_without_direct_writes_gets_ordinary_ones() -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        check(Path(name), [CONTENT[:5000], 4096, CONTENT], Block())


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", [CONTENT], Block())


def cached_bytes(path: Path) -> int:
    """How much of a file is in the page cache, by mincore(2)."""
    import ctypes
    import mmap

    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    with path.open("rb") as file:
        start = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    assert start not in (None, ctypes.c_void_p(-1).value)
    try:
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), found) == 0
    finally:
        libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(size))
    return sum(one & 1 for one in found) * mmap.PAGESIZE
