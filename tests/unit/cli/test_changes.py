from __future__ import annotations

from controller.cli.points.changes import Tally, change_row, kind_of
from protocol.vault.chunk import ChunkId, Reference
from protocol.vault.diff import Change
from protocol.vault.differences import differences, is_folder_time
from protocol.vault.entry import Entry, Extent, Owner

ME = Owner(1, 1, "me", "us")


def never(_old: Entry, _new: Entry) -> bool:
    raise AssertionError("nobody asked for the content")


def file(size: int = 3, **fields: object) -> Entry:
    return Entry(b"f", 0o100644, ME, 5, size, **fields)  # type: ignore[arg-type]


def extents(number: int) -> tuple[Extent, ...]:
    return (Extent(Reference(ChunkId(bytes([number]) * 32), bytes(32), 9, bytes(16)), 0, 3),)


def test_every_way_in_which_entries_differ_is_named() -> None:
    old = Entry(b"x", 0o100644, ME, 5)
    new = Entry(b"x", 0o100600, Owner(2, 1), 6, xattrs=((b"user.a", b"1"),), link_group=b"y")
    assert differences(old, new, never) == ("mode", "owner", "time", "attributes", "links")
    link = Entry(b"x", 0o120777, ME, 5, target=b"a")
    assert differences(old, link, never) == ("type",)
    assert differences(link, Entry(b"x", 0o120777, ME, 5, target=b"b"), never) == ("target",)


def test_content_is_compared_only_where_the_lengths_are_equal() -> None:
    assert differences(file(3, inline=b"abc"), file(4, inline=b"abcd"), never) == ("content",)
    one, other = file(extents=extents(1)), file(extents=extents(2))
    assert differences(one, one, never) == ()
    assert differences(one, other, lambda _old, _new: True) == ()
    assert differences(one, other, lambda _old, _new: False) == ("content",)


def test_a_folder_that_has_another_time_alone_is_known_as_such() -> None:
    old, new = Entry(b"d", 0o040755, ME, 1), Entry(b"d", 0o040755, ME, 2)
    assert is_folder_time(old, new, ("time",))
    assert not is_folder_time(old, new, ("time", "mode"))
    assert not is_folder_time(None, new, ("time",))
    assert not is_folder_time(file(), file(), ("time",))


def test_a_tally_counts_files_by_their_newer_size() -> None:
    tally = Tally()
    for change in (
        Change(b"", None, file(7)),
        Change(b"", file(5), None),
        Change(b"", file(5), file(9)),
        Change(b"", None, Entry(b"d", 0o040755, ME, 1)),
    ):
        tally.add(kind_of(change), change)
    assert [list(row.values()) for row in tally.rows()] == [
        ["added", 2, 1, 7],
        ["removed", 1, 1, 5],
        ["changed", 1, 1, 9],
    ]


def test_a_row_names_both_sides() -> None:
    row = change_row(Change(b"a", None, file()), ())
    assert (row["path"], row["old"], row["new"]["size_bytes"]) == ("/a/f", None, 3)
