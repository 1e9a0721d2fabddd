"""Flags of files are in the restore point, and a change of them is seen."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.metadata.posix_flags import APPEND_ONLY, IMMUTABLE, NO_DUMP, flags_of, read_flags
from protocol.vault.chunk import Opener
from protocol.vault.entry import Entry
from protocol.vault.node import Root
from protocol.vault.reader import TreeReader
from tests.unit.backup.machine import WHO, Machine
from tests.unit.backup.test_drill import drill

_SET = 0x40086602  # FS_IOC_SETFLAGS


def set_flags(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        held = int.from_bytes(fcntl.ioctl(fd, 0x80086601, bytes(8))[:4], "little")
        wanted = held & ~(IMMUTABLE | APPEND_ONLY | NO_DUMP) | flags
        fcntl.ioctl(fd, _SET, wanted.to_bytes(8, "little"))
    finally:
        os.close(fd)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """On a file system that has flags, with the right to set them."""
    made = Machine(tmp_path)
    (made.files / "trial").touch()
    try:
        set_flags(made.files / "trial", IMMUTABLE)
        set_flags(made.files / "trial", 0)
    except OSError as error:
        pytest.skip(f"not run: no flags can be set in {tempfile.gettempdir()}: {error}")
    yield made
    for where, directories, files in os.walk(made.home):
        for name in directories + files:
            path = Path(where, name)
            if not path.is_symlink() and not path.is_fifo():
                set_flags(path, 0)


def flags_in(machine: Machine, root: Root) -> dict[str, int]:
    reader = TreeReader(Opener(WHO.secret), machine.vault.get)
    top = bytes(machine.files).lstrip(b"/")
    below: list[tuple[bytes, Entry]] = list(reader.below(root, top))
    return {entry.name.decode(): flags_of(entry) for _, entry in below if flags_of(entry)}


def test_flags_of_files_of_all_sizes_links_and_directories_are_kept(machine: Machine) -> None:
    (machine.files / "inline").write_bytes(b"x")
    (machine.files / "small").write_bytes(b"x" * 5_000)
    (machine.files / "big").write_bytes(os.urandom(600_000))
    (machine.files / "linked").write_bytes(b"one file, two names")
    os.link(machine.files / "linked", machine.files / "second")
    (machine.files / "folder").mkdir()
    (machine.files / "plain").write_bytes(b"x")
    wanted = {
        "inline": IMMUTABLE,
        "small": APPEND_ONLY,
        "big": IMMUTABLE | NO_DUMP,
        "linked": IMMUTABLE,
        "second": IMMUTABLE,
        "folder": APPEND_ONLY,
    }
    for name in wanted.keys() - {"second"}:
        set_flags(machine.files / name, wanted[name])
    assert flags_in(machine, machine.back_up().root) == wanted
    time.sleep(0.02)
    machine.back_up()
    again = machine.back_up()
    assert again.counts.read_files == 0
    assert flags_in(machine, again.root) == wanted


def test_a_flag_that_was_set_since_is_seen(machine: Machine) -> None:
    (machine.files / "file").write_bytes(b"x" * 5_000)
    time.sleep(0.02)
    machine.back_up()
    set_flags(machine.files / "file", IMMUTABLE)
    assert flags_in(machine, machine.back_up().root) == {"file": IMMUTABLE}


def test_what_has_no_flags_has_none() -> None:
    reading, writing = os.pipe()
    try:
        assert read_flags(reading) == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_with_flags_is_compared_in_a_drill_like_any_other(machine: Machine) -> None:
    path = machine.files / "kept"
    path.write_bytes(b"as it was")
    set_flags(path, NO_DUMP)
    report = machine.back_up()
    stat = path.stat()
    path.write_bytes(b"is no more")
    os.truncate(path, stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    ((wrong, reason),) = drill(machine, report, path).wrong
    assert wrong == bytes(path).lstrip(b"/")
    assert "time and size are unchanged" in reason
