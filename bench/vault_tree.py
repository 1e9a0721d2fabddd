"""Time the tree format: build and seal, read and open, edit and compare 200,000 entries.

python -m bench.vault_tree [entries]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

from blake3 import blake3

from protocol.vault.chunk import ChunkId, Opener, Reference, Sealer
from protocol.vault.diff import diff
from protocol.vault.entry import Entry, Extent, Owner
from protocol.vault.keys import TenantKey
from protocol.vault.reader import TreeReader
from protocol.vault.tree import TreeBuilder

Found = tuple[bytes, Entry]


def small_files(count: int, per_directory: int = 50) -> list[Found]:
    """Directories of small files whose content lies end to end in chunks of 256 KiB."""
    owner = Owner(1000, 1000, "someone", "someone")
    found: list[Found] = [(b"", Entry(b"", 0o40755, owner, 1_700_000_000_000_000_000))]
    directories = [b"pkg-%05d" % number for number in range(-(-count // per_directory))]
    found += [
        (b"", Entry(name, 0o40755, owner, 1_700_000_000_123_456_789 + number))
        for number, name in enumerate(directories)
    ]
    offset, reference, made = 0, _reference(0), 0
    for directory in directories:
        for number in range(min(per_directory, count - made)):
            length = 1500 + made * 7919 % 5000
            if offset + length > reference.length:
                offset, reference = 0, _reference(made)
            time_ns = 1_700_000_000_000_000_000 + made * 982_451_653
            extent = Extent(reference, offset, length)
            name = b"module_%04d.py" % number
            found.append((directory, Entry(name, 0o100644, owner, time_ns, length, (extent,))))
            offset += length
            made += 1
    return found


def _reference(number: int) -> Reference:
    digest = blake3(number.to_bytes(8, "little")).digest(80)
    return Reference(ChunkId(digest[:32]), digest[32:64], 256 * 1024, digest[64:])


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    found = small_files(count)
    secret = TenantKey(bytes(32)).secret
    held: dict[ChunkId, bytes] = {}
    fetched = 0

    def put(reference: Reference, stored: bytes) -> None:
        held[reference.id] = stored

    def fetch(ids: Sequence[ChunkId]) -> Iterator[bytes]:
        nonlocal fetched
        fetched += len(ids)
        return (held[one] for one in ids)

    def build(entries: list[Found]) -> tuple[float, TreeBuilder]:
        begun = time.perf_counter()
        builder = TreeBuilder(Sealer(secret), secret.boundary_key, put)
        for parent, entry in entries:
            builder.add(parent, entry)
        return begun, builder

    begun, builder = build(found)
    root = builder.finish()
    seconds = time.perf_counter() - begun
    stored_bytes = sum(map(len, held.values()))
    print(f"build   {seconds:6.3f} s  {len(held)} nodes, {stored_bytes / 1e6:.1f} MB, {root[1:]}")

    reader = TreeReader(Opener(secret), fetch)
    begun = time.perf_counter()
    entries = sum(1 for _ in reader.entries(root))
    print(f"read    {time.perf_counter() - begun:6.3f} s  {entries} entries")

    held_before = len(held)
    parent, entry = found[count // 2]
    found[count // 2] = (parent, Entry(entry.name, 0o100600, entry.owner, 1))
    _, builder = build(found)
    edited = builder.finish()
    new = len(held) - held_before
    fetched = 0
    begun = time.perf_counter()
    changes = sum(1 for _ in diff(reader, root, edited))
    seconds = time.perf_counter() - begun
    print(f"diff    {seconds:6.4f} s  {changes} change, {fetched} nodes read, {new} new")

    fetched = 0
    begun = time.perf_counter()
    listed = sum(1 for _ in reader.list_directory(root, parent))
    print(f"list    {time.perf_counter() - begun:6.4f} s  {listed} entries, {fetched} nodes read")


if __name__ == "__main__":
    main()
