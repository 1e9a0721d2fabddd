from __future__ import annotations

import os

import pytest

from protocol.errors import Code, InvalidError
from protocol.vault.chunk import (
    MAX_CHILDREN,
    MAX_PLAIN_BYTES,
    ChunkDamagedError,
    ChunkId,
    Kind,
    Opener,
    Sealer,
    chunk_id,
    decode_reference,
    encode_reference,
    inspect,
)
from protocol.vault.keys import TenantKey, machine_scope

SECRET = TenantKey(bytes(range(32))).secret
STRANGER = TenantKey(bytes(range(1, 33))).secret
SEALER = Sealer(SECRET)
OPENER = Opener(SECRET)
TEXT = b"the same words again and again " * 100
CHILDREN = [bytes([number]) * 32 for number in range(3)]


@pytest.mark.parametrize("plain", [b"", b"x", TEXT, os.urandom(5000), bytes(MAX_PLAIN_BYTES)])
def test_a_chunk_gives_back_its_content(plain: bytes) -> None:
    reference, stored = SEALER.seal(Kind.DATA, plain)
    assert OPENER.open(stored, reference) == plain
    assert reference.length == len(plain)
    assert reference.fingerprint == SEALER.fingerprint(plain)
    assert reference.id == chunk_id(stored)
    assert inspect(stored).stored_bytes == len(stored)
    assert decode_reference(encode_reference(reference)) == reference


def test_content_that_does_not_shrink_is_kept_as_it_is() -> None:
    assert not inspect(SEALER.seal(Kind.DATA, os.urandom(1000))[1]).compressed
    assert inspect(SEALER.seal(Kind.DATA, TEXT)[1]).compressed


def test_two_machines_of_a_tenant_make_the_same_chunk() -> None:
    assert SEALER.seal(Kind.DATA, TEXT) == Sealer(SECRET).seal(Kind.DATA, memoryview(TEXT))


def test_nothing_is_shared_between_tenants_nor_between_scopes() -> None:
    made = {
        Sealer(secret).seal(Kind.DATA, TEXT)[0]
        for secret in (SECRET, STRANGER, machine_scope(SECRET, "mc_1"))
    }
    for place in (0, 1, 3):
        assert len({reference[place] for reference in made}) == 3


def test_kind_and_children_are_part_of_the_key() -> None:
    made = [
        SEALER.seal(Kind.DATA, TEXT)[0],
        SEALER.seal(Kind.TREE, TEXT)[0],
        SEALER.seal(Kind.TREE, TEXT, CHILDREN)[0],
    ]
    assert len({reference.key for reference in made}) == 3


def test_a_tree_chunk_names_its_children_to_everybody() -> None:
    reference, stored = SEALER.seal(Kind.TREE, TEXT, CHILDREN)
    assert list(inspect(stored).children) == CHILDREN
    assert OPENER.open_tree(stored, reference) == (TEXT, tuple(CHILDREN))
    with pytest.raises(ChunkDamagedError, match="tree chunk"):
        OPENER.open(stored, reference)


def test_stored_bytes_show_no_content() -> None:
    secret_words = os.urandom(64)
    assert secret_words not in SEALER.seal(Kind.DATA, secret_words * 2)[1]


def test_a_chunk_that_no_member_made_is_refused_even_with_a_fitting_reference() -> None:
    reference, stored = Sealer(STRANGER).seal(Kind.DATA, TEXT)
    with pytest.raises(ChunkDamagedError, match="nobody of this tenant") as caught:
        OPENER.open(stored, reference)
    assert caught.value.code is Code.CHUNK_DAMAGED
    assert reference.id.hex() in str(caught.value)


def test_a_reference_that_lies_is_refused() -> None:
    reference, stored = SEALER.seal(Kind.DATA, TEXT)
    for wrong in (
        reference._replace(key=bytes(32)),
        reference._replace(key=b"short"),
        reference._replace(length=reference.length + 1),
        reference._replace(length=0),
        reference._replace(id=ChunkId(bytes(32))),
    ):
        with pytest.raises(ChunkDamagedError):
            OPENER.open(stored, wrong)
    with pytest.raises(ChunkDamagedError):
        OPENER.open(stored + b"\0", reference._replace(id=chunk_id(stored + b"\0")))


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b"X"), (4, b"\2"), (5, b"\2"), (6, b"\2"), (7, b"\1"), (8, b"\1"), (12, b"\xff" * 4)],
)
def test_absurd_headers_are_refused_without_a_key(place: int, value: bytes) -> None:
    stored = bytearray(SEALER.seal(Kind.DATA, TEXT)[1])
    stored[place : place + len(value)] = value
    with pytest.raises(ChunkDamagedError):
        inspect(stored)


def test_a_header_cannot_make_a_reader_allocate_what_is_not_there() -> None:
    for children in (MAX_CHILDREN, MAX_CHILDREN + 1, 0xFFFFFFFF):
        header = b"StCk\x01\x01\x00\x00" + children.to_bytes(4, "little") + b"\x10\0\0\0"
        with pytest.raises(ChunkDamagedError):
            inspect(header + bytes(16))


def test_what_cannot_be_a_chunk_is_not_sealed() -> None:
    with pytest.raises(InvalidError):
        SEALER.seal(Kind.DATA, bytes(MAX_PLAIN_BYTES + 1))
    with pytest.raises(InvalidError):
        SEALER.seal(Kind.DATA, b"", CHILDREN)
    with pytest.raises(InvalidError):
        SEALER.seal(Kind.TREE, b"", [bytes(32)] * (MAX_CHILDREN + 1))
