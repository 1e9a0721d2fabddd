"""Entries that no system can have cost nothing but themselves."""

from __future__ import annotations

from pathlib import Path
from struct import pack
from typing import Any

import pytest

from protocol.vault.chunk import Kind, Sealer
from protocol.vault.entry import Entry, Owner
from protocol.vault.leaf import LeafWriter
from protocol.vault.node import Root
from tests.unit.backup.machine import WHO, Machine

OWNER = Owner(0, 0)
BEYOND_ANY_TIME = (("posix.mtime", pack("<qI", (1 << 63) - 1, (1 << 32) - 1)),)


def file(name: bytes, **known: Any) -> Entry:
    return Entry(name, 0o100644, OWNER, 1, 7, (), b"content", **known)


def planted(machine: Machine, entries: list[Entry]) -> Root:
    """A restore point with these in its only folder, sealed as the machine seals."""
    writer = LeafWriter()
    writer.add(b"", Entry(b"files", 0o040755, OWNER, 1))
    for entry in entries:
        writer.add(b"files", entry)
    plain, children = writer.finish()
    reference, stored = Sealer(WHO.secret).seal(Kind.TREE, plain, children)
    machine.vault.chunks[reference.id] = stored
    return Root(reference, 0, len(entries) + 1, len(entries), 0)


@pytest.mark.parametrize(
    ("entry", "is_made"),
    [
        (Entry(b"odd", 0o120777, OWNER, 1, target=b"a\0b"), False),
        (Entry(b"odd", 0o120777, OWNER, 1, target=b"a", extensions=BEYOND_ANY_TIME), True),
        (Entry(b"odd", 0o040755, OWNER, 1, extensions=BEYOND_ANY_TIME), True),
        (file(b"odd", extensions=BEYOND_ANY_TIME), True),
        (file(b"odd", xattrs=((b"user.a\0b", b"value"),)), True),
        (file(b"o" * 300), False),
    ],
    ids=["target", "time of a link", "time of a folder", "time", "attribute", "name"],
)
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_what_cannot_be_is_named_and_what_comes_after_it_is_restored(
    tmp_path: Path, entry: Entry, *, is_made: bool, overwrite: bool
) -> None:
    machine = Machine(tmp_path)
    root = planted(machine, [entry, file(b"then")])
    # The folder is there, so what lies in it is looked at first.
    (tmp_path / "target" / "files").mkdir(parents=True)
    restored, done = machine.restore(
        root, b"files", target=tmp_path / "target", overwrite=overwrite
    )
    assert (restored / "then").read_bytes() == b"content"
    assert (restored / "odd").is_symlink() or (restored / "odd").exists() or not is_made
    assert {one.path for one in done.failed.kept} == (
        set() if is_made else {b"files/" + entry.name}
    )
    assert not any("there already" in one.reason for one in done.failed.kept)
    assert not list(restored.glob(".stead-restore-*"))
