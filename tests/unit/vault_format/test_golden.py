"""Every release reads what version 1 of the format wrote, and writes the same."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from agent.backup.far_time import mtime_of
from agent.metadata.macos import acl
from agent.metadata.macos import flags as mac_flags
from agent.metadata.posix_flags import APPEND_ONLY, IMMUTABLE, NO_ATIME, flags_of
from protocol.vault.chunk import ChunkId, Kind, Opener, chunk_id, decode_reference
from protocol.vault.epochs import TenantKeys, decode_tenant_keys, open_link
from protocol.vault.grant import decode_grant, open_grant
from protocol.vault.keys import decode_tenant_key, decode_vault_secret, parse_paper_key
from protocol.vault.leaf import decode_leaf
from protocol.vault.node import decode_root
from protocol.vault.pack import pack_id, read_index, scan
from protocol.vault.point import (
    decode_envelope,
    encode_point,
    open_contents,
    point_hash,
    verify_point,
)
from protocol.vault.reader import TreeReader
from tests.unit.vault_format import golden
from tests.unit.vault_format.points import MACHINE, POINT, TENANT, contents, machine_key


def vector(name: str) -> Any:
    return json.loads((golden.FOLDER / f"v1-{name}.json").read_text())


@pytest.mark.parametrize("name", golden.FIXED)
def test_this_release_writes_what_version_1_wrote(name: str) -> None:
    # When only `stored` bytes differ, zstd compresses otherwise than it did: old chunks
    # can still be read, but new backups no longer share them. See docs/vault-format.md.
    assert json.loads(json.dumps(golden.FIXED[name]())) == vector(name)


def test_keys_are_read() -> None:
    recorded = vector("keys")
    assert decode_tenant_key(bytes.fromhex(recorded["tenant_key"])) == golden.KEY
    assert decode_vault_secret(bytes.fromhex(recorded["vault_secret"])) == golden.SECRET
    assert parse_paper_key(recorded["paper"]) == golden.KEY


def test_links_are_opened() -> None:
    recorded = vector("links")
    newer = decode_tenant_key(bytes.fromhex(recorded["newer"]))
    assert open_link(newer, bytes.fromhex(recorded["link"])) == golden.KEY
    found = decode_tenant_keys(bytes.fromhex(recorded["key_file"]))
    assert found == TenantKeys((newer, golden.KEY))


def test_chunks_are_opened() -> None:
    for one in vector("chunks")["chunks"]:
        reference = decode_reference(bytes.fromhex(one["reference"]))
        stored = bytes.fromhex(one["stored"])
        plain = Opener(golden.SECRET).open(stored, reference, Kind(one["kind"]))
        assert plain.hex() == one["plain"]


def test_trees_are_read() -> None:
    recorded = vector("tree")
    children = [ChunkId(bytes.fromhex(child)) for child in recorded["leaf_children"]]
    leaf = decode_leaf(bytes.fromhex(recorded["leaf_plain"]), children)
    assert leaf.entries == golden.every_kind()
    for name, found in (("every_kind", golden.every_kind()), ("many", golden.many())):
        held = {chunk_id(node): node for node in map(bytes.fromhex, recorded[name]["nodes"])}
        reader = TreeReader(Opener(golden.SECRET), partial(map, held.__getitem__))
        root = decode_root(bytes.fromhex(recorded[name]["root"]))
        assert list(reader.entries(root)) == found


def test_named_streams_are_read_and_their_chunks_are_children_of_the_node() -> None:
    kept = vector("streams")
    children = [ChunkId(bytes.fromhex(one)) for one in kept["leaf_children"]]
    leaf = decode_leaf(bytes.fromhex(kept["leaf_plain"]), children)
    entries = [entry for _, entry in leaf.entries]
    assert entries == golden.with_streams()
    named = {
        extent.reference.id
        for entry in entries
        for stream in entry.streams
        for extent in stream.extents
        if extent.reference is not None
    }
    assert len(named) == 3
    assert named == set(children)


def test_extensions_are_read() -> None:
    leaf = decode_leaf(bytes.fromhex(vector("extensions")["leaf_plain"]), [])
    far = 15_032_385_535 * 1_000_000_000
    assert [(entry.name, flags_of(entry), mtime_of(entry)) for _, entry in leaf.entries] == [
        (b"append-only", APPEND_ONLY, 1),
        (b"far", 0, far),
        (b"immutable-and-far", IMMUTABLE | NO_ATIME, far),
    ]


def test_entries_of_a_mac_are_read() -> None:
    leaf = decode_leaf(bytes.fromhex(vector("macos")["leaf_plain"]), [])
    entries = {entry.name: entry for _, entry in leaf.entries}
    held = mac_flags.HIDDEN | mac_flags.IMMUTABLE
    assert [mac_flags.flags_of(one) for one in entries.values()] == [held, 0, held, 0, 0]
    assert entries[b"early"].born_ns == -1
    for name in (b"both", b"listed"):
        found = acl.parse(dict(entries[name].extensions)[acl.NAME])
        assert found is not None
        assert acl.lines(found, is_folder=False) == ["0: group:everyone deny delete"]


def test_packs_are_read() -> None:
    recorded = vector("pack")
    pack = bytes.fromhex(recorded["pack"])
    assert pack_id(pack) == recorded["name"]
    assert list(scan(pack)) == read_index(pack)


def test_restore_points_are_verified_and_opened() -> None:
    recorded = vector("point")
    point = verify_point(decode_envelope(bytes.fromhex(recorded["envelope"])))
    body = bytes.fromhex(recorded["body"])
    assert encode_point(point) == body
    assert point_hash(body).hex() == recorded["hash"]
    root = decode_root(bytes.fromhex(vector("tree")["every_kind"]["root"]))
    inside = contents(root)
    assert open_contents(golden.KEY.recovery_private, point) == inside
    assert open_contents(machine_key(), point) == inside


def test_grants_are_opened() -> None:
    recorded = vector("point")
    grant = decode_grant(bytes.fromhex(recorded["grant"]))
    names = {"tenant": TENANT, "machine": MACHINE, "point": POINT}
    assert open_grant(machine_key(), bytes.fromhex(recorded["sealed_grant"]), **names) == grant
