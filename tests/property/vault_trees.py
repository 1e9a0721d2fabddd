"""Strategies and a memory of chunks for the laws of the vault's format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blake3 import blake3
from hypothesis import strategies as st

from protocol.vault.chunk import ChunkId, Opener, Reference, Sealer
from protocol.vault.entry import Entry, Extent, Owner, Stream
from protocol.vault.keys import TenantKey
from protocol.vault.node import Root
from protocol.vault.path import children_prefix, tree_key
from protocol.vault.reader import TreeReader
from protocol.vault.tree import TreeBuilder

TENANT = TenantKey(bytes(range(32)))
SECRET = TENANT.secret
Found = tuple[bytes, Entry]

TIMES = st.integers(-(1 << 62), 1 << 62)
NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
OWNERS = st.builds(Owner, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), TEXTS, TEXTS)


class Held:
    """Chunks in memory, counting what is asked for."""

    def __init__(self) -> None:
        self.chunks: dict[ChunkId, bytes] = {}
        self.fetched: list[ChunkId] = []

    def put(self, reference: Reference, stored: bytes) -> None:
        self.chunks[reference.id] = stored

    def fetch(self, ids: Sequence[ChunkId]) -> Iterator[bytes]:
        self.fetched += ids
        return (self.chunks[one] for one in ids)

    def reader(self) -> TreeReader:
        return TreeReader(Opener(SECRET), self.fetch)

    def build(self, found: Sequence[Found]) -> Root:
        builder = TreeBuilder(Sealer(SECRET), SECRET.boundary_key, self.put)
        for parent, entry in found:
            builder.add(parent, entry)
        return builder.finish()


def reference(number: int, length: int = 1 << 20) -> Reference:
    digest = blake3(number.to_bytes(8, "little", signed=True)).digest(80)
    return Reference(ChunkId(digest[:32]), digest[32:64], length, digest[64:])


def in_key_order(found: Sequence[Found]) -> list[Found]:
    return sorted(found, key=lambda one: children_prefix(one[0]) + one[1].name)


def key_of(found: Found) -> bytes:
    return children_prefix(found[0]) + found[1].name


@st.composite
def extents(draw: st.DrawFn) -> tuple[Extent, ...]:
    made = []
    for hole in draw(st.lists(st.booleans(), max_size=4)):
        length = draw(st.integers(1, 1000))
        if hole:
            made.append(Extent(None, 0, length))
        else:
            made.append(
                Extent(reference(draw(st.integers(0, 50))), draw(st.integers(0, 1000)), length)
            )
    return tuple(made)


def sorted_pairs(names: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    pairs = st.dictionaries(names, st.binary(max_size=20), max_size=3)
    return pairs.map(lambda one: tuple(sorted(one.items())))


@st.composite
def entries(draw: st.DrawFn, name: bytes) -> Entry:
    kind = draw(st.sampled_from([1, 2, 4, 6, 8, 8, 8, 10, 12]))
    fields: dict[str, object] = {}
    if kind == 8:
        if draw(st.booleans()):
            inline = draw(st.binary(max_size=40))
            fields |= {"inline": inline, "size": len(inline)}
        else:
            listed = draw(extents())
            fields |= {"extents": listed, "size": sum(one.length for one in listed)}
    elif kind == 10:
        fields["target"] = draw(st.binary(min_size=1, max_size=20))
    elif kind in (2, 6):
        fields["rdev"] = draw(st.integers(0, (1 << 63) - 1))
    if draw(st.integers(0, 3)) == 0:
        listed = draw(extents())
        fields |= {
            "xattrs": draw(sorted_pairs(st.binary(min_size=1, max_size=9))),
            "link_group": draw(st.none() | st.binary(max_size=9)),
            "changed_while_read": draw(st.booleans()),
            "born_ns": draw(st.none() | TIMES),
            "extensions": draw(sorted_pairs(TEXTS)),
            "streams": (Stream(b":more", sum(one.length for one in listed), listed),),
        }
    return Entry(
        name=name,
        mode=kind << 12 | draw(st.integers(0, 0o7777)),
        owner=draw(OWNERS),
        mtime_ns=draw(TIMES),
        **fields,  # type: ignore[arg-type]
    )


@st.composite
def trees(draw: st.DrawFn, max_size: int = 30) -> list[Found]:
    """Entries in key order. Parents need not be there: the format does not ask for it."""
    parents = draw(
        st.lists(st.lists(NAMES, max_size=3).map(b"/".join), min_size=1, max_size=5, unique=True)
    )
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(parents), NAMES),
            max_size=max_size,
            unique_by=lambda place: tree_key(b"/".join(filter(None, place))),
        )
    )
    found = [(parent, draw(entries(name))) for parent, name in places]
    if draw(st.booleans()):
        found.append((b"", Entry(b"", 0o40755, Owner(0, 0, "root", "root"), 1)))
    return in_key_order(found)


def many_files(count: int, per_directory: int = 40) -> list[Found]:
    """A wide tree, quick to make: more than one level of inner nodes from 70,000 on."""
    owner = Owner(1000, 1000, "someone", "someone")
    return in_key_order(
        [
            (
                b"dir-%04d" % (number // per_directory),
                Entry(
                    b"file-%06d" % number,
                    0o100644,
                    owner,
                    number,
                    100,
                    (Extent(reference(number // 100), number % 100 * 100, 100),),
                ),
            )
            for number in range(count)
        ]
    )
