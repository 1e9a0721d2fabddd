from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import InvalidError
from protocol.vault.chunk import ChunkId, Reference
from protocol.vault.entry import MAX_EXTENTS, Entry, Extent, Kind, Owner, Stream, check_entry
from protocol.vault.leaf import LeafWriter

OWNER = Owner(0, 0, "root", "root")
CHUNK = Reference(ChunkId(bytes(32)), bytes(32), 100, bytes(16))
OTHER = CHUNK._replace(id=ChunkId(b"o" * 32))
FILE = 0o100644


def entry(mode: int = FILE, name: bytes = b"name", **fields: Any) -> Entry:
    return Entry(name, mode, fields.pop("owner", OWNER), fields.pop("mtime_ns", 1), **fields)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_is_known_by_its_mode(kind: Kind) -> None:
    target = b"x" if kind is Kind.SYMLINK else b""
    made = entry(kind << 12 | 0o600, target=target)
    check_entry(made)
    assert made.kind is kind


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": b""},
        {"name": b"a/b"},
        {"mode": 0o644},
        {"mode": 0o30644},
        {"mode": 1 << 20},
        {"mtime_ns": 1 << 63},
        {"size": -1},
        {"size": 1 << 63},
        {"size": 1},
        {"size": 2, "inline": b"abc"},
        {"size": 3, "inline": b"abc", "extents": (Extent(CHUNK, 0, 3),)},
        {"size": 3, "inline": b"abc", "target": b"x"},
        {"size": 101, "extents": (Extent(CHUNK, 0, 101),)},
        {"size": 100, "extents": (Extent(CHUNK, 1, 100),)},
        {"size": 0, "extents": (Extent(CHUNK, 0, 0),)},
        {"size": 1, "extents": (Extent(CHUNK, -1, 1),)},
        {"size": 5, "extents": (Extent(None, 1, 5),)},
        {"size": 5, "extents": (Extent(None, 0, 5),), "depth": 1},
        {"size": 5, "extents": (Extent(CHUNK, 0, 5),), "depth": 9},
        {"size": MAX_EXTENTS + 1, "extents": (Extent(CHUNK, 0, 1),) * (MAX_EXTENTS + 1)},
        {"target": b"x"},
        {"rdev": 1},
        {"mode": 0o120777},
        {"mode": 0o120777, "target": b"x" * 70_000},
        {"mode": 0o40755, "size": 1},
        {"mode": 0o40755, "rdev": 1},
        {"mode": 0o40755, "inline": b""},
        {"mode": 0o60600, "rdev": -1},
        {"xattrs": ((b"b", b""), (b"a", b""))},
        {"xattrs": ((b"a", b""), (b"a", b""))},
        {"xattrs": ((b"a", bytes(70_000)),)},
        {"link_group": b"x" * 70_000},
        {"born_ns": 1 << 64},
        {"extensions": (("b", b""), ("a", b""))},
        {"streams": (Stream(b"b", 0), Stream(b"a", 0))},
        {"streams": (Stream(b"b", 1),)},
    ],
)
def test_an_entry_that_cannot_exist_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        check_entry(entry(**wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": Owner(0, 0, "\udcff")},
        {"owner": Owner(1 << 32, 0)},
        {"owner": Owner(0, -1)},
        {"owner": Owner(5, 5), "extensions": (("\udcff", b""),)},
        {"size": 1, "extents": (Extent(OTHER, 0, 1),), "extensions": (("big", bytes(5 << 20)),)},
        {"extensions": (("\udcff", b""),)},
        {"extensions": (("big", bytes(5 << 20)),)},
        {"size": 3, "extents": (Extent(CHUNK._replace(key=b""), 0, 3),)},
    ],
)
def test_what_cannot_be_written_down_is_refused(wrong: dict[str, Any]) -> None:
    writer, untouched = LeafWriter(), LeafWriter()
    for one in (writer, untouched):
        one.add(b"a", entry(name=b"before"))
    with pytest.raises(InvalidError):
        writer.add(b"b", entry(**wrong))
    for one in (writer, untouched):
        one.add(b"c", entry(name=b"after", size=1, extents=(Extent(CHUNK, 0, 1),)))
    assert writer.finish() == untouched.finish()
