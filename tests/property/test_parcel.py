"""Laws of parcels: what one side sealed the other opens, and nothing else is opened."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import SteadError
from protocol.ids import MachineId, ParcelId, TenantId
from protocol.parcel import (
    OPERATOR,
    PIECE_BYTES,
    ParcelDamagedError,
    Trailer,
    key_of_content,
    open_key,
    open_piece,
    open_trailer,
    parcel_of_key,
    pieces_in,
    seal_key,
    seal_piece,
    seal_trailer,
    sealed_bytes,
)
from protocol.vault.keys import VaultSecret

PARCEL = ParcelId("pc_00000000000000000000000001")
OTHER = ParcelId("pc_00000000000000000000000002")
MACHINE = MachineId("mc_00000000000000000000000001")
TENANT = TenantId("tn_00000000000000000000000001")
KEYS = st.binary(min_size=32, max_size=32)
INDEXES = st.integers(0, (1 << 20) - 2)


@given(key=KEYS, index=INDEXES, plain=st.binary(max_size=300))
def test_a_piece_is_opened_in_its_place(key: bytes, index: int, plain: bytes) -> None:
    sealed = seal_piece(key, PARCEL, OPERATOR, index, plain)
    assert open_piece(key, PARCEL, OPERATOR, index, sealed) == plain
    assert seal_piece(key, PARCEL, OPERATOR, index, plain) == sealed


@given(
    key=KEYS, index=INDEXES, plain=st.binary(max_size=300), at=st.integers(0), bit=st.integers(0, 7)
)
def test_no_piece_is_opened_elsewhere_or_with_a_bit_changed(
    key: bytes, index: int, plain: bytes, at: int, bit: int
) -> None:
    sealed = seal_piece(key, PARCEL, OPERATOR, index, plain)
    edited = bytearray(sealed)
    edited[at % len(sealed)] ^= 1 << bit
    for parcel, sender, number, data, is_trailer in (
        (PARCEL, OPERATOR, index, bytes(edited), False),
        (PARCEL, OPERATOR, index + 1, sealed, False),
        (PARCEL, MACHINE, index, sealed, False),
        (OTHER, OPERATOR, index, sealed, False),
        (PARCEL, OPERATOR, index, sealed, True),
        (PARCEL, OPERATOR, index, sealed[:-1], False),
        (PARCEL, OPERATOR, index, b"", False),
    ):
        with pytest.raises(ParcelDamagedError):
            open_piece(key, parcel, sender, number, data, is_trailer=is_trailer)


@given(key=KEYS, size=st.integers(0, 40 * PIECE_BYTES), other=st.integers(0, 40))
def test_a_trailer_ends_its_own_content_and_no_shorter_one(
    key: bytes, size: int, other: int
) -> None:
    trailer = Trailer(size, bytes(32), 0o640, -5, "www-data", "")
    sealed = seal_trailer(key, PARCEL, OPERATOR, trailer)
    count = pieces_in(size)
    assert open_trailer(key, PARCEL, OPERATOR, count, sealed) == trailer
    assert len(sealed) + size + 16 * count <= sealed_bytes(size)
    if other != count:
        with pytest.raises(ParcelDamagedError):
            open_trailer(key, PARCEL, OPERATOR, other, sealed)


def test_a_trailer_in_a_place_that_its_size_does_not_lead_to_is_no_end() -> None:
    """Whoever has the key could seal one anywhere, and so cut a file short."""
    key, five = bytes(32), Trailer(5 * PIECE_BYTES, bytes(32), 0o640, 0, "", "")
    plain = msgspec.msgpack.encode(five)
    for place in (4, 5, 6):
        sealed = seal_piece(key, PARCEL, OPERATOR, place, plain, is_trailer=True)
        if place == 5:
            assert open_trailer(key, PARCEL, OPERATOR, place, sealed) == five
            continue
        with pytest.raises(ParcelDamagedError, match="longer or shorter"):
            open_trailer(key, PARCEL, OPERATOR, place, sealed)


@given(secret=KEYS, size=st.integers(0, 1 << 40), content=KEYS)
def test_the_same_content_of_one_tenant_has_one_key_and_one_parcel(
    secret: bytes, size: int, content: bytes
) -> None:
    own, foreign = VaultSecret(secret, bytes(32)), VaultSecret(bytes(32), bytes(32))
    key = key_of_content(own, size, content)
    assert key_of_content(own, size, content) == key
    assert parcel_of_key(key) == parcel_of_key(key)
    assert key_of_content(own, size + 1, content) != key
    if secret != bytes(32):
        assert key_of_content(foreign, size, content) != key


@given(key=KEYS)
def test_a_key_is_opened_by_its_machine_for_its_parcel_alone(key: bytes) -> None:
    own, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    names = {"tenant": TENANT, "machine": MACHINE}
    public = own.public_key().public_bytes_raw()
    sealed = seal_key(key, public, parcel=PARCEL, **names)  # type: ignore[arg-type]
    assert open_key(own, sealed, parcel=PARCEL, **names) == key  # type: ignore[arg-type]
    for who, parcel in ((other, PARCEL), (own, OTHER)):
        with pytest.raises(SteadError):
            open_key(who, sealed, parcel=parcel, **names)  # type: ignore[arg-type]
