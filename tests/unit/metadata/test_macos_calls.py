"""The calls to macOS, with a library that answers as its manual pages say; no Mac was asked."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.metadata.extras import Extras
from agent.metadata.macos import acl, flags, moment
from agent.metadata.macos.attributes import RESOURCE_FORK
from agent.metadata.macos.calls import MacOS
from agent.metadata.named import NO_STREAMS, Listing, Named
from agent.metadata.port import System
from protocol.errors import InvalidError
from protocol.vault.entry import Entry, Owner
from tests.unit.metadata.test_macos import DENY_DELETE

QUARANTINE = (b"com.apple.quarantine", b"0000;59d84776;MySoftware.app;")


def fails(number: int) -> int:
    ctypes.set_errno(number)
    return -1


class Library:
    """One file: `xattrs`, the bytes of its list, and when it was made."""

    def __init__(self) -> None:
        self.xattrs: dict[bytes, bytes] = {}
        self.listed: bytes = b""
        self.born_ns: int | None = None
        self.refuses: dict[str, int] = {}
        self.freed = 0
        self.gone: set[bytes] = set()

    def flistxattr(self, _fd: int, room: Any, size: int, _options: int) -> int:
        return self._give(b"".join(name + b"\0" for name in self.xattrs), room, size)

    def fgetxattr(
        self, _fd: int, name: bytes, room: Any, size: int, place: int, _options: int
    ) -> int:
        if name in self.gone or name not in self.xattrs:
            return fails(93)
        value = self.xattrs[name]
        if name == RESOURCE_FORK and room is not None:
            # The one attribute of which a part is given.
            return self._give(value[place : place + size], room, size)
        assert not place
        return self._give(value, room, size)

    def fsetxattr(
        self, _fd: int, name: bytes, value: bytes, size: int, place: int, _options: int
    ) -> int:
        assert not place or name == RESOURCE_FORK
        before = self.xattrs.get(name, b"") if name == RESOURCE_FORK else b""
        after = before[:place].ljust(place, b"\0") + value[:size] + before[place + size :]
        return self._change("fsetxattr", lambda: self.xattrs.update({name: after}))

    def fremovexattr(self, _fd: int, name: bytes, _options: int) -> int:
        return 0 if self.xattrs.pop(name, None) is not None else fails(93)

    def fgetattrlist(self, _fd: int, wanted: bytes, room: Any, size: int, _options: int) -> int:
        assert wanted == moment.wanted()
        if self.born_ns is None:
            return fails(errno.ENOTSUP)
        answer = (20).to_bytes(4, "little") + moment.timespec_of(self.born_ns)
        room[:size] = answer
        return 0

    def fsetattrlist(self, _fd: int, wanted: bytes, given: bytes, size: int, _options: int) -> int:
        assert wanted == moment.wanted()
        answer = (20).to_bytes(4, "little") + given[:size]
        return self._change(
            "fsetattrlist", lambda: setattr(self, "born_ns", moment.born_of(answer))
        )

    def acl_get_fd_np(self, _fd: int, kind: int) -> int | None:
        assert kind == 0x100
        if not self.listed:
            fails(errno.ENOENT)
            return None
        return 1

    def acl_size(self, _handle: int) -> int:
        return len(self.listed)

    def acl_copy_ext(self, room: Any, _handle: int, size: int) -> int:
        return self._give(self.listed, room, size)

    def acl_copy_int(self, listed: bytes) -> bytes:
        return listed

    def acl_set_fd_np(self, _fd: int, handle: bytes, _kind: int) -> int:
        return self._change("acl_set_fd_np", lambda: setattr(self, "listed", handle))

    def acl_free(self, _handle: object) -> int:
        self.freed += 1
        return 0

    def _change(self, name: str, act: Callable[[], object]) -> int:
        if name in self.refuses:
            return fails(self.refuses[name])
        act()
        return 0

    @staticmethod
    def _give(value: bytes, room: Any, size: int) -> int:
        if room is not None:
            assert size >= len(value)
            room[: len(value)] = value
        return len(value)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


def test_a_file_with_nothing_rare_costs_an_entry_nothing(fd: int) -> None:
    assert MacOS(Library()).of_open(fd) == Extras()


def test_an_attribute_that_vanished_is_not_kept_as_an_empty_one(fd: int) -> None:
    library = Library()
    library.xattrs, library.gone = {b"a": b"", b"b": b"1", b"c": b"2"}, {b"b"}
    assert MacOS(library).of_open(fd).xattrs == ((b"a", b""), (b"c", b"2"))


def test_what_is_given_is_what_was_there(fd: int) -> None:
    one = Library()
    one.xattrs = dict([QUARANTINE, (b"com.apple.FinderInfo", bytes(32))])
    one.listed, one.born_ns = DENY_DELETE, -5
    found = MacOS(one).of_open(fd)
    assert found == Extras((QUARANTINE,), ((acl.NAME, DENY_DELETE),), -5)
    assert one.freed == 1
    other = Library()
    entry = Entry(
        b"x",
        0o100644,
        Owner(0, 0),
        0,
        xattrs=found.xattrs,
        born_ns=found.born_ns,
        extensions=found.extensions,
    )
    assert list(MacOS(other).give(fd, entry)) == []
    assert MacOS(other).of_open(fd) == found


def test_what_is_refused_is_told_and_the_rest_is_set(fd: int) -> None:
    library = Library()
    library.refuses = {"fsetxattr": errno.EPERM, "acl_set_fd_np": errno.ENOTSUP}
    entry = Entry(
        b"x",
        0o100644,
        Owner(0, 0),
        0,
        xattrs=(QUARANTINE, (b"com.apple.system.Security", b"never set")),
        born_ns=9,
        extensions=((acl.NAME, DENY_DELETE), (flags.NAME, b"\2\0\0\0")),
    )
    assert list(MacOS(library).give(fd, entry)) == [
        "attribute com.apple.quarantine: operation not permitted",
        "access control list: operation not supported",
    ]
    assert library.born_ns == 9
    assert library.xattrs == {}


def test_a_hostile_list_is_not_shown_to_the_system(fd: int) -> None:
    library = Library()
    bad = Entry(b"x", 0o100644, Owner(0, 0), 0, extensions=((acl.NAME, DENY_DELETE[:-1]),))
    (told,) = MacOS(library).give(fd, bad)
    assert "has 67 bytes" in told
    assert library.listed == b""


def test_a_time_that_cannot_be_is_told(fd: int) -> None:
    library = Library()
    library.born_ns = 0
    library.fgetattrlist = lambda *_: 0  # type: ignore[method-assign]
    found = MacOS(library).of_open(fd)
    assert found.born_ns is None
    assert "time of creation" in found.left_out[0]


def test_a_list_that_cannot_be_read_is_told_and_the_rest_is_kept(fd: int) -> None:
    library = Library()
    library.xattrs, library.listed = dict([QUARANTINE]), b"?" * 44
    found = MacOS(library).of_open(fd)
    assert found.xattrs == (QUARANTINE,)
    assert "begins with 0x3f3f3f3f" in found.left_out[0]


FORK = os.urandom(2_500_000)


def read(system: System, directory: int, name: bytes) -> bytes:
    with system.read_stream(directory, name, RESOURCE_FORK) as fill:
        room = bytearray(3_000_000)
        return bytes(room[: fill(memoryview(room))])


def test_a_large_resource_fork_is_a_named_stream_and_a_small_one_an_attribute(
    fd: int, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    library = Library()
    system = MacOS(library)
    assert system.streams(fd, b"file", file.stat()) == NO_STREAMS
    library.xattrs = {RESOURCE_FORK: FORK[:300]}
    assert system.streams(fd, b"file", file.stat()) == NO_STREAMS
    assert system.at(fd, b"file").xattrs == ((RESOURCE_FORK, FORK[:300]),)
    library.xattrs = {RESOURCE_FORK: FORK, b"a": b"1"}
    assert system.streams(fd, b"file", file.stat()) == Listing((Named(RESOURCE_FORK, len(FORK)),))
    assert system.at(fd, b"file") == Extras(((b"a", b"1"),))
    assert read(system, fd, b"file") == FORK
    assert system.streams(fd, b"", tmp_path.stat()) == NO_STREAMS


def test_a_resource_fork_is_written_in_pieces_in_place_of_another(fd: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    library = Library()
    library.xattrs = {RESOURCE_FORK: bytes(4_000_000)}
    system = MacOS(library)
    with system.write_stream(fd, b"file", RESOURCE_FORK) as write:
        write(FORK[:1_500_000])
        write(memoryview(FORK)[1_500_000:])
    assert library.xattrs == {RESOURCE_FORK: FORK}
    with system.write_stream(fd, b"file", RESOURCE_FORK) as write:
        for piece in (5, b"x", 7):
            write(piece)
    assert library.xattrs == {RESOURCE_FORK: bytes(5) + b"x" + bytes(7)}
    system.remove_stream(fd, b"file", RESOURCE_FORK)
    system.remove_stream(fd, b"file", RESOURCE_FORK)
    assert library.xattrs == {}
    library.refuses = {"fsetxattr": errno.ENOSPC}
    with (
        pytest.raises(OSError, match="No space"),
        system.write_stream(fd, b"file", RESOURCE_FORK) as write,
    ):
        write(b"1")


def test_macos_has_no_other_stream(fd: int) -> None:
    system = MacOS(Library())
    assert system.takes_stream(RESOURCE_FORK)
    assert not system.takes_stream(b"Zone.Identifier")
    with pytest.raises(InvalidError), system.read_stream(fd, b"", b"Zone.Identifier"):
        pass
