from __future__ import annotations

import pytest

from controller.cli.points.wanted import Wanted, names_pattern, parse_size
from protocol.errors import InvalidError
from protocol.vault.chunk import ChunkId, Reference
from protocol.vault.entry import Entry, Kind, Owner
from protocol.vault.node import Root

ME = Owner(0, 0)
REFERENCE = Reference(ChunkId(bytes(32)), bytes(32), 0, bytes(16))


def file(name: bytes, size: int = 10, mtime_ns: int = 0) -> Entry:
    return Entry(name, 0o100644, ME, mtime_ns, size)


def node(entries: int, files: int, size: int) -> Root:
    return Root(REFERENCE, 0, entries, files, size)


def test_any_of_the_patterns_is_enough() -> None:
    wanted = Wanted(names_pattern(["*.jpg", "a?"]))
    assert wanted.fits(file(b"cat.jpg"))
    assert wanted.fits(file(b"a1"))
    assert not wanted.fits(file(b"a12"))
    assert not wanted.fits(file(b"cat.JPG"))


def test_names_of_any_bytes_can_be_looked_for() -> None:
    wanted = Wanted(names_pattern(["*\udcff*", "line*"]))
    assert wanted.fits(file(b"x\xffy"))
    assert wanted.fits(file(b"line\nbreak"))


def test_sizes_are_those_of_files() -> None:
    wanted = Wanted(least_bytes=0)
    assert wanted.fits(file(b"empty", 0))
    assert not wanted.fits(Entry(b"folder", 0o040755, ME, 0))
    assert not Wanted(most_bytes=9).fits(file(b"ten"))


def test_times_and_types_are_compared() -> None:
    assert Wanted(since_ns=5, until_ns=5).fits(file(b"x", mtime_ns=5))
    assert not Wanted(since_ns=6).fits(file(b"x", mtime_ns=5))
    assert not Wanted(kind=Kind.SYMLINK).fits(file(b"x"))


@pytest.mark.parametrize(
    ("wanted", "nothing", "something"),
    [
        (Wanted(least_bytes=100), node(5, 5, 99), node(5, 5, 100)),
        (Wanted(most_bytes=1), node(5, 0, 0), node(5, 1, 0)),
        (Wanted(kind=Kind.FILE), node(5, 0, 0), node(5, 1, 0)),
        (Wanted(kind=Kind.DIRECTORY), node(5, 5, 0), node(5, 4, 0)),
    ],
)
def test_nodes_that_cannot_hold_it_are_passed_by(
    wanted: Wanted, nothing: Root, something: Root
) -> None:
    assert not wanted.may_be_below(nothing)
    assert wanted.may_be_below(something)
    assert Wanted().may_be_below(nothing)


@pytest.mark.parametrize("text", ["", "-1", "k", "1 x", "1e5", "ten"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_size(text)
