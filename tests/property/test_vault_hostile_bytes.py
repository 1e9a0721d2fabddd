from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import SteadError
from protocol.vault.chunk import (
    Kind,
    Opener,
    Reference,
    Sealer,
    chunk_id,
    decode_reference,
    inspect,
)
from protocol.vault.entry import Extent
from protocol.vault.grant import Grant, decode_grant, encode_grant
from protocol.vault.keys import decode_tenant_key, decode_vault_secret, encode_vault_secret
from protocol.vault.leaf import LeafWriter, decode_leaf
from protocol.vault.node import (
    Item,
    decode_extents,
    decode_inner,
    decode_root,
    encode_extents,
    encode_inner,
)
from protocol.vault.pack import PackBuilder, read_index, scan
from protocol.vault.point import decode_envelope, decode_point, verify_point
from protocol.vault.seal import open_sealed
from tests.property.vault_trees import SECRET, TENANT, Found, Held, many_files, reference, trees

IDS = [reference(number).id for number in range(60)]


def _leaf() -> bytes:
    writer = LeafWriter()
    for parent, entry in many_files(4):
        writer.add(parent, entry)
    return writer.finish()[0]


def _pack() -> bytes:
    builder = PackBuilder(Kind.DATA)
    sealer = Sealer(SECRET)
    for number in range(3):
        made, stored = sealer.seal(Kind.DATA, bytes([number]) * 200)
        builder.add(made.id, stored)
    return b"".join(builder.finish()[1])


HELD = Held()
ROOT = HELD.build(many_files(100))
STORED = HELD.chunks[ROOT.reference.id]
LEAF = _leaf()
INNER, INNER_IDS = encode_inner(
    1, [Item(bytes([0, 97 + n]), ROOT._replace(reference=reference(n))) for n in (0, 1)]
)
LISTED, LISTED_IDS = encode_extents(0, [Extent(reference(1), 0, 5), Extent(None, 0, 9)])
GRANT = encode_grant(Grant(HELD.reader().subtree(ROOT, b"dir-0001")))
PACK = _pack()

DECODERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "chunk": (inspect, STORED),
    "reference": (decode_reference, bytes(84)),
    "leaf": (lambda data: decode_leaf(data, IDS[:1]), LEAF),
    "inner": (lambda data: decode_inner(data, INNER_IDS), INNER),
    "extents": (lambda data: decode_extents(data, LISTED_IDS), LISTED),
    "root": (decode_root, bytes(109)),
    "grant": (lambda data: list(HELD.reader().read(*decode_grant(data).spans)), GRANT),
    "pack": (read_index, PACK),
    "scan": (lambda data: list(scan(data)), PACK),
    "point": (decode_point, b"\x80"),
    "envelope": (lambda data: verify_point(decode_envelope(data)), b"\x94\x01\xc4\x00\x90\xc4\x00"),
    "tenant key": (decode_tenant_key, bytes(40)),
    "vault secret": (decode_vault_secret, encode_vault_secret(SECRET)),
    "sealed": (lambda data: open_sealed(TENANT.recovery_private, data, b""), bytes(90)),
}


def survives(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except SteadError:
        return


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_our_errors(name: str, data: bytes) -> None:
    survives(DECODERS[name][0], data)


@pytest.mark.parametrize("name", DECODERS)
def test_truncation_at_every_byte_raises_nothing_but_our_errors(name: str) -> None:
    decode, whole = DECODERS[name]
    for end in range(0, len(whole), max(1, len(whole) // 400)):
        survives(decode, whole[:end])


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_flipped_bytes_raise_nothing_but_our_errors(name: str, data: st.DataObject) -> None:
    decode, whole = DECODERS[name]
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    survives(decode, bytes(damaged))


@given(place=st.integers(0, len(STORED) * 8 - 1))
def test_one_flipped_bit_of_a_chunk_is_always_found(place: int) -> None:
    damaged = bytearray(STORED)
    damaged[place // 8] ^= 1 << place % 8
    opener = Opener(SECRET)
    with pytest.raises(SteadError):
        opener.open_tree(bytes(damaged), ROOT.reference)
    # Nor when whoever stores it makes up an id that fits the damaged bytes.
    forged = ROOT.reference._replace(id=chunk_id(damaged))
    with pytest.raises(SteadError):
        opener.open_tree(bytes(damaged), forged)


@given(found=trees(), data=st.data())
def test_a_hostile_member_cannot_make_a_reader_fail_but_with_our_errors(
    found: list[Found], data: st.DataObject
) -> None:
    """Somebody who holds the secret seals a node whose plain bytes are damaged."""
    writer = LeafWriter()
    for parent, entry in found:
        writer.add(parent, entry)
    plain, children = writer.finish()
    damaged = bytearray(plain)
    for place in data.draw(st.lists(st.integers(0, len(plain) - 1), min_size=1, max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    held = Held()
    made, stored = Sealer(SECRET).seal(Kind.TREE, damaged, children)
    held.put(made, stored)
    root = ROOT._replace(reference=made, level=0, entries=len(found))

    def read(_: bytes) -> object:
        return list(held.reader().entries(root))

    survives(read, b"")


@given(cuts=st.lists(st.integers(0, len(PACK) - 1), min_size=1, max_size=3))
def test_a_scan_finds_every_chunk_that_damage_did_not_touch(cuts: list[int]) -> None:
    damaged = bytearray(PACK)
    for place in cuts:
        damaged[place] ^= 0xFF
    intact = [
        one
        for one in read_index(PACK)
        if damaged[one.offset - 32 : one.offset + one.length]
        == PACK[one.offset - 32 : one.offset + one.length]
    ]
    found = list(scan(damaged))
    assert [one for one in found if hasattr(one, "kind")] == intact
    spans = [(one.offset - 32, one.length + 32) if hasattr(one, "kind") else one for one in found]
    ends = 0
    for offset, length in spans:
        assert offset == ends
        ends = offset + length


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    import zstandard
    from blake3 import blake3
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    for packed in (
        zstandard.ZstdCompressor().compress(bytes(1 << 28)),
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 28)),
    ):
        header = b"StCk\x01\x00\x01\x00" + bytes(4) + (len(packed) + 16).to_bytes(4, "little")
        key = blake3(header, key=SECRET.convergence).update(packed).digest()
        stored = header + AESGCM(key).encrypt(bytes(12), packed, header)
        for length in (100, 1 << 24, 1 << 28):
            bomb = Reference(chunk_id(stored), key, length, bytes(16))
            with pytest.raises(SteadError):
                Opener(SECRET).open(stored, bomb)
